-- What every script begins with. A session's open step is one stream: each entry carries the step's state in its first
-- field, then pieces, under the id `<units up to here>-<nth such entry>`. The last entry says how things are.

local function found(key)
  local entry = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  if not entry then
    return { units = 0, nth = 0, epoch = 0, author = 0, base = 0, size = 0 }
  end
  local units, nth = string.match(entry[1], '(%d+)-(%d+)')
  local epoch, author, base, size = cmsgpack.unpack(entry[2][2])
  return {
    units = tonumber(units), nth = tonumber(nth), epoch = epoch, author = author, base = base, size = size
  }
end

local function forget(key, step, base)
  redis.call('UNLINK', key)
  step.units, step.nth, step.size, step.base = 0, 0, 0, base
end

local function keep(key, ttl, step, pieces)
  local state = cmsgpack.pack(step.epoch, step.author, step.base, step.size)
  redis.call('XADD', key, step.units .. '-' .. (step.nth + 1), 'state', state, unpack(pieces))
  redis.call('PEXPIRE', key, ttl)
end

local function shown(key, step, after)
  if step.units == 0 then
    return false
  end
  local pieces = {}
  for _, entry in ipairs(redis.call('XRANGE', key, after + 1, '+')) do
    local values = entry[2]
    for n = 4, #values, 2 do
      pieces[#pieces + 1] = values[n]
    end
  end
  return { step.epoch, step.base, pieces }
end
