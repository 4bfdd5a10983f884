#!lua flags=no-writes
-- KEYS: row, events. ARGV: after, limit.
-- Head, status, shelf, and the events from the first number on, of one moment. A missing one is false.
-- Of a session that was erased or deleted from its shelf only the last event is left.

local found = redis.call('HMGET', KEYS[1], 'head', 'status', 'shelf')
if not found[1] then
  return false
end
local head, status, first = tonumber(found[1]), tonumber(found[2]), tonumber(ARGV[1]) + 1
if status >= DELETED and redis.call('HEXISTS', KEYS[2], 1) == 0 then
  first = math.max(first, head)
end
local last, events = math.min(head, first + tonumber(ARGV[2]) - 1), {}
for begin = first, last, 1000 do
  local numbers = {}
  for seq = begin, math.min(begin + 999, last) do
    numbers[#numbers + 1] = seq
  end
  for _, event in ipairs(redis.call('HMGET', KEYS[2], unpack(numbers))) do
    events[#events + 1] = event
  end
end
return { head, status, found[3], first, events }
