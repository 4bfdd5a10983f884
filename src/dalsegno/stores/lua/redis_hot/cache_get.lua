#!lua flags=no-writes
-- KEYS: cache. ARGV: name.
-- The version and the content, if there is something that has not expired.

local kept = redis.call('HMGET', KEYS[1], 'is:' .. ARGV[1], 'has:' .. ARGV[1])
if not kept[1] or not kept[2] then
  return false
end
local version, expires = string.match(kept[1], '^(%d+) (%d+)$')
local clock = redis.call('TIME')
if not version or tonumber(expires) <= clock[1] * 1000 + math.floor(clock[2] / 1000) then
  return false
end
return { tonumber(version), kept[2] }
