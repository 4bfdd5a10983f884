#!lua flags=no-writes
-- KEYS: ready, held, expiring, members. ARGV: claimant, limit, chances, what a row's key begins with.
-- What the claimant, if it is alive, may claim of this part: free and ready, or held by nobody alive. {name, owner, row}
-- each, after the clock; false for a row that is gone, and for some whose time is over. Turns that begin or resume their last attempt only with a chance left.
-- This only looks: `write` asks again whatever it depends on.

local now, limit, chances = clock(), tonumber(ARGV[2]), tonumber(ARGV[3])
local claimant = member(KEYS[4], ARGV[1])
local found = { now }
if not claimant or not lives(claimant, now) then
  return found
end

local function offer(name, owner, is_last)
  local row = row_of(ARGV[4] .. name)
  local ready = row and row[6] ~= '' and tonumber(row[6]) <= now
  if not row or (ready and (chances > 0 or not is_last(tonumber(row[5])))) then
    found[#found + 1] = { name, owner, row }
  end
end

local function resumes_last(attempt)
  return attempt >= 3
end

local function begins_last(attempt)
  return attempt == 2
end

local offset = 0
repeat
  local names = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', offset, limit)
  for _, name in ipairs(names) do
    offer(name, '', resumes_last)
  end
  offset = offset + #names
until #names < limit or #found > limit

local enough, after = #found + limit, '-'
repeat
  local entry = redis.call('ZRANGEBYLEX', KEYS[2], after, '+', 'LIMIT', 0, 1)[1]
  local owner = entry and string.match(entry, '^([^%z]*)%z')
  if owner then
    if gone(KEYS[4], owner, claimant, now) then
      for _, held in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], '[' .. owner .. '\0', '(' .. owner .. '\1')) do
        if #found < enough then
          offer(string.sub(held, #owner + 2), owner, begins_last)
        end
      end
    end
    after = '[' .. owner .. '\1'
  end
until not owner or #found >= enough

for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, limit)) do
  found[#found + 1] = { name, '', false }
end
return found
