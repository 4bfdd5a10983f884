#!lua flags=no-writes
-- KEYS: step. ARGV: base, after.
-- The open step; of the one with that base only the entries that end after that unit.

local step = found(KEYS[1])
local after = tonumber(ARGV[1]) == step.base and tonumber(ARGV[2]) or 0
return shown(KEYS[1], step, after)
