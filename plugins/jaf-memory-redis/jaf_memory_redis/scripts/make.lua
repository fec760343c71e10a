-- Conversations that are not there yet and never expire, several in one call; only a single server runs this.
--
-- KEYS[1..2] the index by activity and by creation; behind them for each conversation its header, bodies, ids and
-- jaf-py's key, and where it has an owner, the owner's two indexes.
-- ARGV, for each conversation: how many messages, how many more fields and values of the header, its owner ('' for none), its id,
-- the moments of its creation and of its last activity ('' for now), the bytes of its messages, its incarnation, whether it is
-- trimmed ('0' or '1'); then the bodies, the ids from the newest on, the fields and values in turn.
--
-- Answers 1 for each that was made, and 0 for each that `write.lua` has to decide, because something stands there.
local FORMAT = '1'
local EPOCH = 62135596800
local HEAD = 9

if redis.replicate_commands then redis.replicate_commands() end

local call = redis.call
local clock = call('TIME')
local score = clock[1] .. string.sub('000000' .. clock[2], -6)
local now = string.format('%012.0f', clock[1] + EPOCH) .. string.sub(score, -6)

local answers, new, activity, creation = {}, {}, {}, {}
local at, key = 1, 3
while at <= #ARGV do
  local count, more, owner = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2]
  local one = { at = at, count = count, more = more, key = key, created = ARGV[at + 4], active = ARGV[at + 5] }
  if call('EXISTS', KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]) == 0 then
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
    creation[#creation + 1], creation[#creation + 2] = '0', entry
    if owner ~= '' then
      call('ZADD', KEYS[key + 4], place, id)
      -- As `index` in `prelude.lua` does it.
      if call('ZADD', KEYS[2], '0', 'o:' .. owner) == 1 or call('EXISTS', KEYS[key + 5]) == 1 then
        call('ZADD', KEYS[key + 5], '0', entry)
      end
    end
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
  at = at + HEAD + 2 * count + more
  key = key + (owner == '' and 4 or 6)
end
if #new == 0 then return answers end

-- The indexes first: an entry that points nowhere is harmless, a conversation without one would be lost.
call('ZADD', KEYS[1], unpack(activity))
call('ZADD', KEYS[2], unpack(creation))
-- Positions as text, once for all: Redis writes each number of Lua's anew.
local texts, places = {}, {}
for _, one in ipairs(new) do
  local from, count = one.at, one.count
  local bodies = from + HEAD
  local ids = bodies + count
  local more = ids + count
  if count > 0 then
    call('RPUSH', KEYS[one.key + 1], unpack(ARGV, bodies, ids - 1))
    -- The newest first: a short set is looked through from its lowest position on, for each that is added.
    for position = #texts, count - 1 do texts[position + 1] = string.format('%d', position) end
    for index = 1, count do
      places[2 * index - 1], places[2 * index] = texts[count - index + 1], ARGV[ids + index - 1]
    end
    call('ZADD', KEYS[one.key + 2], unpack(places, 1, 2 * count))
  end
  call('HSET', KEYS[one.key], 'v', '1', 'u', one.active, 'n', ARGV[from], 's', ARGV[from + 6], 'f', FORMAT,
    'id', ARGV[from + 3], 'inc', ARGV[from + 7], 'c', one.created, 'p', '0', 'k', ARGV[from + 8],
    unpack(ARGV, more, more + one.more - 1))
end
return answers
