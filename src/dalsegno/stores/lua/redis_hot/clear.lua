#!lua flags=allow-oom
-- KEYS: step. ARGV: epoch, time to live in ms.
-- Forget the pieces; the fence stays. A stale epoch's clear does nothing. Works on a full server: it makes room.

local key, epoch, ttl = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local step = found(key)
if step.epoch > 0 and epoch >= step.epoch then
  forget(key, step, step.base)
  step.epoch = epoch
  keep(key, ttl, step, {})
end
return 1
