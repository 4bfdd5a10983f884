#!lua flags=allow-oom
-- KEYS: members.
-- Remove records of long ago, or of a clock that was set back.

local now = clock()
for _, incarnation in ipairs(redis.call('HKEYS', KEYS[1])) do
  local record = member(KEYS[1], incarnation)
  if record.expires < now - 60000 or record.expires - record.ttl > now then
    redis.call('HDEL', KEYS[1], incarnation)
  end
end
return 1
