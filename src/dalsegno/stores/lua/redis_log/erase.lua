#!lua flags=allow-oom
-- KEYS: row, events, keys, unerased. ARGV: name, epoch.
-- Remove a deleted session's events but the last, its keys and its shelf. It counts as erased if that is its epoch.
-- One step: the server gives the memory back in the background.

local found = redis.call('HMGET', KEYS[1], 'status', 'head', 'epoch')
if not found[1] or tonumber(found[1]) < DELETED then
  return 0
end
local last = redis.call('HGET', KEYS[2], found[2])
redis.call('UNLINK', KEYS[2], KEYS[3])
if last then
  redis.call('HSET', KEYS[2], found[2], last)
  local expires = redis.call('PEXPIRETIME', KEYS[1])
  if expires > 0 then
    redis.call('PEXPIREAT', KEYS[2], expires)
  end
end
if found[3] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'status', ERASED)
  redis.call('HDEL', KEYS[1], 'shelf')
  redis.call('ZREM', KEYS[4], ARGV[1])
end
return 1
