#!lua
-- KEYS: cache. ARGV: name, version, time to live in ms, names at most, content.
-- Keep the content, unless what is kept under that name is newer, or everything was forgotten for good.

local key, name, version, ttl = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('HEXISTS', key, 'forgotten') == 1 then
  return 0
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local kept = redis.call('HGET', key, 'is:' .. name)
if kept then
  local known, expires = string.match(kept, '(%d+) (%d+)')
  if tonumber(expires) > now and tonumber(known) > version then
    return 0
  end
elseif redis.call('HLEN', key) >= 2 * tonumber(ARGV[4]) then
  redis.call('UNLINK', key)
end
redis.call('HSET', key, 'is:' .. name, string.format('%.0f %.0f', version, now + ttl), 'has:' .. name, ARGV[5])
if redis.call('PTTL', key) < ttl then
  redis.call('PEXPIRE', key, ttl)
end
return 1
