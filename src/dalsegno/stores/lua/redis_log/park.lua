#!lua flags=allow-oom
-- KEYS: row, ready. ARGV: stamp, name.
-- Out of the claims' sight until somebody writes the session again.

if redis.call('HGET', KEYS[1], 'stamp') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'ready_at', '')
  redis.call('ZREM', KEYS[2], ARGV[2])
end
return 1
