-- Conversations that are not there yet and never expire, several in one call; only a single server runs this.
--
-- KEYS[1..2] the index by activity and by creation; behind them for each conversation its header, bodies, ids and
-- jaf-py's key, and where it has an owner, the owner's two indexes.
-- ARGV, for each conversation: how many messages, how many fields and values of the header, its owner ('' for none), its id,
-- the moments of its creation and of its last activity ('' for now); then the bodies, the positions and ids in turn, the
-- fields and values in turn.
--
-- Answers 1 for each that was made, and 0 for each that `write.lua` has to decide, because something stands there.
local EPOCH = 62135596800

if redis.replicate_commands then redis.replicate_commands() end

local clock = redis.call('TIME')
local score = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now = string.format('%012.0f%06.0f', clock[1] + EPOCH, clock[2])

local answers, new, activity, creation = {}, {}, {}, {}
local at, key = 1, 3
while at <= #ARGV do
  local count, fields, owner = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2]
  local one = { at = at + 6, count = count, fields = fields, key = key, created = ARGV[at + 4], active = ARGV[at + 5] }
  if redis.call('EXISTS', KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]) == 0 then
    local id = ARGV[at + 3]
    if one.created == '' then one.created = now end
    local place = score
    if one.active == '' then
      one.active = now
    else
      place = (tonumber(string.sub(one.active, 1, 12)) - EPOCH) * 1000000 + tonumber(string.sub(one.active, 13))
    end
    local entry = one.created .. id
    new[#new + 1] = one
    activity[#activity + 1], activity[#activity + 2] = place, id
    creation[#creation + 1], creation[#creation + 2] = 0, entry
    if owner ~= '' then
      redis.call('ZADD', KEYS[key + 4], place, id)
      -- As `index` in `prelude.lua` does it.
      if redis.call('ZADD', KEYS[2], 0, 'o:' .. owner) == 1 or redis.call('EXISTS', KEYS[key + 5]) == 1 then
        redis.call('ZADD', KEYS[key + 5], 0, entry)
      end
    end
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
  at = at + 6 + 3 * count + fields
  key = key + (owner == '' and 4 or 6)
end
if #new == 0 then return answers end

-- The indexes first: an entry that points nowhere is harmless, a conversation without one would be lost.
redis.call('ZADD', KEYS[1], unpack(activity))
redis.call('ZADD', KEYS[2], unpack(creation))
for _, one in ipairs(new) do
  local bodies = one.at
  local places = bodies + one.count
  local fields = places + 2 * one.count
  if one.count > 0 then
    redis.call('RPUSH', KEYS[one.key + 1], unpack(ARGV, bodies, places - 1))
    redis.call('ZADD', KEYS[one.key + 2], unpack(ARGV, places, fields - 1))
  end
  redis.call('HSET', KEYS[one.key], 'u', one.active, 'c', one.created, unpack(ARGV, fields, fields + one.fields - 1))
end
return answers
