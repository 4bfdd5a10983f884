#!lua flags=allow-oom
-- KEYS: cache. ARGV: time to live in ms.
-- Forget everything, and refuse what arrives late. Works on a full server: it makes room.

redis.call('UNLINK', KEYS[1])
redis.call('HSET', KEYS[1], 'forgotten', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
