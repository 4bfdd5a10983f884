#!lua flags=allow-oom
-- KEYS: row, all, unerased, ready, expiring, held. ARGV: name, owner.
-- A session whose time is over is listed no more. 0: it is there; perhaps it was given more time, or all there is.

local expires = redis.call('PEXPIRETIME', KEYS[1])
if expires >= 0 then
  redis.call('ZADD', KEYS[5], expires, ARGV[1])
elseif expires == -1 then
  redis.call('ZREM', KEYS[5], ARGV[1])
end
if expires >= -1 then
  return 0
end
for n = 2, 5 do
  redis.call('ZREM', KEYS[n], ARGV[1])
end
redis.call('ZREM', KEYS[6], ARGV[2] .. '\0' .. ARGV[1])
return 1
