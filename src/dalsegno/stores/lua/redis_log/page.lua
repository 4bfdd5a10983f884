#!lua flags=no-writes
-- KEYS: a list of names. ARGV: from, to (as ZRANGEBYLEX takes them), limit, what a row's key begins with.
-- {name, row} each, in order, after the clock; false for a row that is not here: it has expired, or it is being moved.

local found = { clock() }
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])) do
  found[#found + 1] = { name, row_of(ARGV[4] .. name) }
end
return found
