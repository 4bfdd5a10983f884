#!lua flags=allow-oom
-- KEYS: members. ARGV: run id of the server that has looked; then incarnations and the ids of their connections.
-- Remove whoever has not come back on another connection since. Another run of the server knows nothing of the ids.

local buried = {}
if string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') ~= ARGV[1] then
  return buried
end
for n = 2, #ARGV, 2 do
  local record = member(KEYS[1], ARGV[n])
  if record and record.server == ARGV[1] and record.client == tonumber(ARGV[n + 1]) then
    redis.call('HDEL', KEYS[1], ARGV[n])
    buried[#buried + 1] = ARGV[n]
  end
end
return buried
