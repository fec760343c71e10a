-- What every script over one conversation begins with: the request, the time, and the header. `scripts.py` puts it in front.
--
-- KEYS[1] header, KEYS[2] message bodies, KEYS[3] message ids by position; on a single server also
-- KEYS[4] jaf-py's key for this id, KEYS[5..7] the index by activity, by creation and by expiry,
-- KEYS[8..9] the owner's index by activity and by creation, where the caller knows an owner.
-- ARGV[1] the request, a MessagePack map; ARGV[2...] the messages that come with it, all ids and then all bodies, so
-- that they go from the line into the list as they are. Moments are 18 digits: microseconds since the year 1.
local FORMAT = '1'
local GAPPED = '2' -- of a conversation with positions that have no message: `g` says how many; places are found by counting
local EPOCH = 62135596800
local AFTERLIFE = 60000 -- ms: what nobody has purged so long after it expired is dropped by Redis itself
local RESERVED = 'm:"jaf-memory:'
local SUMMARY = 'm:"jaf-memory:summary"'
local STEP = 2000 -- Lua's stack takes no more than 8,000 arguments at once

if not redis.acl_check_cmd then redis.replicate_commands() end -- before Redis 7.0

-- What functions take most often stands close before them: Lua looks for it from there on backwards, each time it makes one.
local call = redis.call

local request = cmsgpack.unpack(ARGV[1])
local SINGLE = #KEYS - (request.more or 0) > 3
local MANY, HEAVY = 200, 524288 -- messages, and their bytes, that one script takes in its stride
local given = (#ARGV - 1) / 2 -- how many messages
local clock = call('TIME')
local microseconds = clock[2]
if #microseconds < 6 then microseconds = string.sub('000000' .. microseconds, -6) end
local seconds = clock[1] + EPOCH
-- Long numbers go as short ones or as text: as they are, each takes several times as long to write.
local now = string.format('%06d%06d%s', seconds / 1000000, seconds % 1000000, microseconds)
local score_of_now = clock[1] .. microseconds

-- Where `fields_of` has the fields of a header.
local FORMED, INCARNATION, VERSION, CREATED, ACTIVE, EXPIRES, TTL = 1, 2, 3, 4, 5, 6, 7
local OWNER, FIRST, TRIMMED, COUNT, SIZE, ID = 8, 9, 10, 11, 12, 13

-- They come as text, absent ones as false; nil where no header stands.
local function fields_of(key)
  local fields = redis.pcall('HMGET', key, 'f', 'inc', 'v', 'c', 'u', 'x', 't', 'o', 'p', 'k', 'n', 's', 'id')
  if fields.err then
    -- Another type of Redis's in its place is a header that cannot be read; any other refusal stays one.
    if not string.find(fields.err, 'WRONGTYPE', 1, true) then call('HMGET', key, 'f') end
    return {}
  end
  if not (fields[FORMED] or fields[INCARNATION] or fields[VERSION] or fields[COUNT]) then return nil end
  -- Only there: nearly all have none.
  if fields[FORMED] == GAPPED then fields.gaps = tonumber(call('HGET', key, 'g')) end
  return fields
end

local function is_moment(text)
  return text and #text == 18 and text < '315537897600000000' and string.find(text, '^%d+$') -- before the year 10000
end

-- Whether a header is as we write it, and this conversation's: what a hand on the server changed, or renamed, must not
-- be reckoned with. If it is: version, position of the oldest message, count and size, as numbers; else nil.
local function numbers_of(fields, id)
  local version, first = tonumber(fields[VERSION]), tonumber(fields[FIRST])
  local count, size, gaps = tonumber(fields[COUNT]), tonumber(fields[SIZE]), fields.gaps
  local format, expires, ttl = fields[FORMED], fields[EXPIRES], fields[TTL]
  if version and first and count and size and version >= 0 and first >= 0 and count >= 0 and size >= 0
    and version + first + count + size < 9007199254740992 and version % 1 + first % 1 + count % 1 + size % 1 == 0
    and (format == FORMAT or (format == GAPPED and gaps and gaps > 0 and gaps < 9007199254740992 and gaps % 1 == 0
    and count > 0))
    and fields[INCARNATION] and fields[OWNER] ~= '' and fields[ID] == id
    and is_moment(fields[CREATED]) and is_moment(fields[ACTIVE]) and (not expires or is_moment(expires)) then
    if ttl then ttl = tonumber(ttl) or 0 end
    if not ttl or (ttl > 0 and ttl < 1e12) then return version, first, count, size end
  end
end

local fields = fields_of(KEYS[1])
local version, first, count, size
if fields then version, first, count, size = numbers_of(fields, request.id) end
