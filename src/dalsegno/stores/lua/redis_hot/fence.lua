#!lua flags=allow-oom
-- KEYS: step. ARGV: epoch, time to live in ms.
-- Raise the fence and show what is there. 0: a newer epoch has been here. Works on a full server: a fence is small.

local key, epoch, ttl = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local step = found(key)
if epoch < step.epoch then
  return 0
end
if epoch > step.epoch then
  step.epoch = epoch
  keep(key, ttl, step, {})
else
  redis.call('PEXPIRE', key, ttl)
end
return shown(key, step, 0)
