-- What every script begins with. A part of the log is a set of keys in one slot:
--   row:<name>     hash: the session's columns. `stamp` names the write that made it so, and is never used again
--   events:<name>  hash: number -> event
--   keys:<name>    hash: digest -> what is known under it
--   all            names of all sessions, deleted ones too; `unerased` those that are deleted and not erased
--   ready          names of the free sessions that have something to run, by the time from which they wait for it
--   held           <owner>\0<name> of the sessions that somebody owns
--   expiring       names of the sessions that are kept for a time only, by its end
--   members        hash: incarnation -> its liveness record
-- Since they share a slot, a script changes a session and what is listed of it in one step, also in a cluster.

local FIELDS = {
  'stamp', 'head', 'epoch', 'owner', 'attempt', 'ready_at', 'since', 'status', 'state', 'shelf'
}
local DELETED, ERASED = 3, 4

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The columns in that order, or false if there is no such session.
local function row_of(key)
  local found = redis.call('HMGET', key, unpack(FIELDS))
  return found[1] and found
end

local function member(members, incarnation)
  local packed = redis.call('HGET', members, incarnation)
  if not packed then
    return nil
  end
  local about, expires, ttl, since, server, client = cmsgpack.unpack(packed)
  return { about = about, expires = expires, ttl = ttl, since = since, server = server, client = client }
end

-- A record of the future was written before the clock was set back: dead until it beats again.
local function lives(record, now)
  return now < record.expires and record.expires - record.ttl <= now
end

-- Whether `owner` is gone, in the eyes of a claimant. Who was cut off itself when the owner's time ended gives it the
-- time to come back: an outage is nobody's death.
local function gone(members, owner, claimant, now)
  local record = member(members, owner)
  if not record then
    return true
  end
  if lives(record, now) then
    return false
  end
  local witnessed = claimant.since <= record.expires and record.expires <= now
  return witnessed or now >= claimant.since + record.ttl / 2
end

-- What `write` says. The write carries its condition and its fence: nothing is written unless the row is the very one
-- that was decided on, the events follow its head, and the epoch does not go back. A claim's is also that the claimant
-- lives and the owner does not, here and now.
local function write()
  local row, events, keys, all, unerased, ready, held, expiring, members = unpack(KEYS)
  local name, head, epoch, owner, ready_at, now = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[8], clock()
  local old = redis.call('HMGET', row, 'stamp', 'head', 'epoch', 'owner', 'ready_at', 'since')
  local was_owner, count = old[4] or '', tonumber(ARGV[15])
  if old[1] == ARGV[2] then
    return { 2, now }
  end
  if (old[1] or '') ~= ARGV[1] or head ~= (tonumber(old[2]) or 0) + count or epoch < (tonumber(old[3]) or 0) then
    return { 0, now }
  end
  if ARGV[12] ~= '' and redis.call('HEXISTS', keys, ARGV[12]) == 1 then
    return { 0, now }
  end
  if ARGV[13] ~= '' then
    local claimant = member(members, ARGV[13])
    if not claimant or not lives(claimant, now) then
      return { 0, now }
    end
    if was_owner ~= '' and not gone(members, was_owner, claimant, now) then
      return { 0, now }
    end
  end

  local waits = owner == '' and ready_at == '0'
  local waited = old[1] and was_owner == '' and old[5] == '0'
  local since = waits and waited and tonumber(old[6]) or math.min(tonumber(ARGV[14]), now)
  for n = 1, count do
    redis.call('HSET', events, head - count + n, ARGV[15 + n])
  end
  for n = 16 + count, #ARGV, 2 do
    redis.call('HSETNX', keys, ARGV[n], ARGV[n + 1])
  end
  redis.call('HSET', row, 'stamp', ARGV[2], 'head', head, 'epoch', epoch, 'owner', owner, 'attempt', ARGV[7],
    'ready_at', ready_at, 'since', since, 'status', ARGV[9], 'state', ARGV[10])
  if not old[1] then
    redis.call('ZADD', all, 0, name)
  end
  if tonumber(ARGV[9]) == DELETED then
    redis.call('ZADD', unerased, 0, name)
  end
  if owner == '' and ready_at ~= '' then
    redis.call('ZADD', ready, math.max(since, tonumber(ready_at)), name)
  else
    redis.call('ZREM', ready, name)
  end
  if was_owner ~= owner then
    if was_owner ~= '' then
      redis.call('ZREM', held, was_owner .. '\0' .. name)
    end
    if owner ~= '' then
      redis.call('ZADD', held, 0, owner .. '\0' .. name)
    end
  end
  local kept = tonumber(ARGV[11])
  if kept > 0 then
    redis.call('ZADD', expiring, now + kept, name)
  end
  for _, key in ipairs({ row, events, keys }) do
    if kept > 0 then
      redis.call('PEXPIREAT', key, now + kept)
    else
      redis.call('PERSIST', key)
    end
  end
  return { 1, now }
end
