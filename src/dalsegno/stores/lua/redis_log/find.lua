#!lua flags=no-writes
-- KEYS: row, keys. ARGV: digest or nothing.
-- The clock, the session's row, and what is known under the digest, of one moment.

local known = ARGV[1] ~= '' and redis.call('HGET', KEYS[2], ARGV[1])
return { clock(), row_of(KEYS[1]), known }
