#!lua
-- KEYS: row, events. ARGV: shelf; then of each event number and content.
-- Put the events of that shelf back and forget it. If the session has no such shelf or is deleted, nothing is done.

local found = redis.call('HMGET', KEYS[1], 'status', 'shelf')
if not found[1] or tonumber(found[1]) >= DELETED or found[2] ~= ARGV[1] then
  return 0
end
for n = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[n], ARGV[n + 1])
end
redis.call('HDEL', KEYS[1], 'shelf')
local expires = redis.call('PEXPIRETIME', KEYS[1])
if expires > 0 then
  redis.call('PEXPIREAT', KEYS[2], expires)
end
return 1
