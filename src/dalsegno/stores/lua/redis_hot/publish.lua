#!lua
-- KEYS: steps. ARGV: time to live in ms, bytes at most; then for each step epoch, number of pieces, and of each piece
-- base, at, end and body. Keep what continues the steps. Of each: 1; 0: a newer epoch has been here; -1: it failed.

local ttl, most = ARGV[1], tonumber(ARGV[2])

local function publish(key, epoch, first, last)
  local step = found(key)
  if epoch < step.epoch then
    return 0
  end
  local news = epoch > step.epoch
  if first <= last and epoch > step.author then
    local goes_on = epoch == step.epoch and tonumber(ARGV[first]) == step.base and tonumber(ARGV[first + 1]) == step.units
    if not goes_on then
      forget(key, step, 0)
    end
    step.author, news = epoch, true
  end
  step.epoch = epoch

  local fresh = {}
  for n = first, last, 4 do
    local base, at, units, body = tonumber(ARGV[n]), tonumber(ARGV[n + 1]), tonumber(ARGV[n + 2]), ARGV[n + 3]
    if base > step.base then
      forget(key, step, base)
      fresh, news = {}, true
    end
    if base == step.base and at == step.units and units > at and step.size + #body <= most then
      step.units, step.nth, step.size = units, 0, step.size + #body
      fresh[#fresh + 1] = 'piece'
      fresh[#fresh + 1] = body
    end
  end
  if news or #fresh > 0 then
    keep(key, ttl, step, fresh)
  else
    redis.call('PEXPIRE', key, ttl)
  end
  return 1
end

local taken, n = {}, 3
for nth, key in ipairs(KEYS) do
  local first, last = n + 2, n + 1 + 4 * tonumber(ARGV[n + 1])
  local done, answer = pcall(publish, key, tonumber(ARGV[n]), first, last)
  taken[nth], n = done and answer or -1, last + 1
end
return taken
