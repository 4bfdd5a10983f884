#!lua flags=allow-oom
-- KEYS: row, events. ARGV: shelf, head, epoch.
-- Remove all events of an idle session that stands there, and keep what says where they are. 0: nothing was done.

local found = redis.call('HMGET', KEYS[1], 'head', 'epoch', 'owner', 'status', 'shelf')
if found[1] ~= ARGV[2] or found[2] ~= ARGV[3] or found[3] ~= '' or found[4] ~= '0' or found[5] then
  return 0
end
redis.call('HSET', KEYS[1], 'shelf', ARGV[1])
redis.call('UNLINK', KEYS[2])
return 1
