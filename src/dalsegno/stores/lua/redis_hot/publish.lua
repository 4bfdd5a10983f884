#!lua
-- KEYS: step. ARGV: epoch, time to live in ms, bytes at most; then of each piece base, at, end and body.
-- Keep what continues the step. 0: a newer epoch has been here.

local key, epoch, ttl, most = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local step = found(key)
if epoch < step.epoch then
  return 0
end
local news = epoch > step.epoch
if #ARGV > 3 and epoch > step.author then
  local goes_on = epoch == step.epoch and tonumber(ARGV[4]) == step.base and tonumber(ARGV[5]) == step.units
  if not goes_on then
    forget(key, step, 0)
  end
  step.author, news = epoch, true
end
step.epoch = epoch

local fresh = {}
for n = 4, #ARGV, 4 do
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
