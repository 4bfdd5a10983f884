#!lua flags=allow-oom
-- KEYS: members. ARGV: incarnation, about, time to live (ms), run id of this server, id of the beating connection or 0.
-- Live from now on for so long. `since`: when this life began; a gap of two thirds of its time begins a new one.

local now, ttl = clock(), tonumber(ARGV[3])
local record = member(KEYS[1], ARGV[1])
local since = now
if record and lives(record, now) and now - (record.expires - record.ttl) <= record.ttl * 2 / 3 then
  since = record.since
end
redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(ARGV[2], now + ttl, ttl, since, ARGV[4], tonumber(ARGV[5])))
return now
