#!lua flags=no-writes
-- KEYS: members.
-- Who this server is; then of each record incarnation, about, whether it is in time, the server that it was written on
-- and the id of the connection that beats, there.

local now, found = clock(), {}
found[1] = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
for _, incarnation in ipairs(redis.call('HKEYS', KEYS[1])) do
  local record = member(KEYS[1], incarnation)
  found[#found + 1] = { incarnation, record.about, lives(record, now) and 1 or 0, record.server, record.client }
end
return found
