-- What every script over one conversation begins with; `scripts.py` puts it in front.
--
-- KEYS[1] header, KEYS[2] message bodies, KEYS[3] message ids by position; on a single server also
-- KEYS[4] jaf-py's key for this id, KEYS[5..7] the index by activity, by creation and by expiry,
-- KEYS[8..9] the owner's index by activity and by creation, where the caller knows an owner.
-- ARGV[1] the request, a MessagePack map. Moments are 18 digits: microseconds since the year 1.
local FORMAT = '1'
local EPOCH = 62135596800
local AFTERLIFE = 60000 -- ms: what nobody has purged so long after it expired is dropped by Redis itself
local RESERVED = 'm:"jaf-memory:'
local SUMMARY = 'm:"jaf-memory:summary"'
local STEP = 2000 -- Lua's stack takes no more than 8,000 arguments at once
local SINGLE = #KEYS > 3

if redis.replicate_commands then redis.replicate_commands() end

local function moment(microseconds)
  local seconds = math.floor(microseconds / 1000000)
  return string.format('%012.0f%06.0f', seconds + EPOCH, microseconds - seconds * 1000000)
end

local function since_1970(text)
  return (tonumber(string.sub(text, 1, 12)) - EPOCH) * 1000000 + tonumber(string.sub(text, 13))
end

-- For text; a command takes numbers as they are, exact up to 2^53.
local function whole(number)
  return string.format('%.0f', number)
end

local request = cmsgpack.unpack(ARGV[1])
local clock = redis.call('TIME')
local clock_number = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now = moment(clock_number)

local function read_header(key)
  local found = redis.call('HMGET', key, 'f', 'inc', 'v', 'c', 'u', 'x', 't', 'o', 'p', 'k', 'n', 's')
  if not found[1] then return nil end
  return {
    format = found[1], incarnation = found[2], version = tonumber(found[3]), created = found[4],
    -- Absent fields come as false; nil compares equal with what a request leaves out.
    updated = found[5], expires = found[6] or nil, ttl = found[7] or nil, owner = found[8] or nil,
    first = tonumber(found[9]),
    trimmed = found[10] == '1', count = tonumber(found[11]), size = tonumber(found[12]),
  }
end

local function stamp(header)
  return header.incarnation .. ':' .. whole(header.version)
end

-- `rules.unsummarised`: what was removed must not live on in a summary that reaches position `from`.
local function unsummarise(from)
  local summary = redis.call('HGET', KEYS[1], SUMMARY)
  if not summary then return end
  -- Its first member; in any other form it is dropped rather than kept too long.
  local reaches = tonumber(string.match(summary, '^{"position":(%d+)'))
  if not reaches or reaches >= from then redis.call('HDEL', KEYS[1], SUMMARY) end
end

local function expired(header)
  return header.expires and header.expires <= now
end

local function expiry_member(owner, created)
  return request.id .. '\0' .. (owner or '') .. '\0' .. created
end

-- `rules.touched`: one more version, `updated_at` never backwards, the expiry renewed.
local function touch(header)
  if header.ttl and (header.version > 0 or not header.expires) then
    header.expires = moment(clock_number + math.floor(tonumber(header.ttl) * 1000000 + 0.5))
  end
  header.version = header.version + 1
  if header.version > 1 and header.updated < now then header.updated = now end
end

-- `before` is nil for a new header; of one that stands, only what changed is written.
local function write_header(header, before, metadata)
  local fields = { 'v', header.version, 'u', header.updated, 'n', header.count, 's', header.size }
  local size = 8
  local function set(field, value)
    fields[size + 1], fields[size + 2] = field, value
    size = size + 2
  end
  if not before then
    set('f', FORMAT)
    set('id', request.id)
    set('inc', header.incarnation)
    set('c', header.created)
  end
  if not before or before.first ~= header.first then set('p', header.first) end
  if not before or before.trimmed ~= header.trimmed then set('k', header.trimmed and '1' or '0') end
  if header.expires and not (before and before.expires == header.expires) then set('x', header.expires) end
  if header.ttl and not (before and before.ttl == header.ttl) then set('t', header.ttl) end
  if header.owner and not (before and before.owner) then set('o', header.owner) end
  redis.call('HSET', KEYS[1], unpack(fields))
  if before and before.expires and not header.expires then redis.call('HDEL', KEYS[1], 'x') end
  if before and before.ttl and not header.ttl then redis.call('HDEL', KEYS[1], 't') end
  for start = 1, metadata and #metadata or 0, STEP do
    redis.call('HSET', KEYS[1], unpack(metadata, start, math.min(start + STEP - 1, #metadata)))
  end
end

local function add_messages(ids, bodies, position)
  local size = 0
  for start = 1, #ids, STEP do
    local stop = math.min(start + STEP - 1, #ids)
    local places = {}
    for index = start, stop do
      places[#places + 1] = position + index - 1
      places[#places + 1] = ids[index]
      size = size + #bodies[index]
    end
    redis.call('RPUSH', KEYS[2], unpack(bodies, start, stop))
    redis.call('ZADD', KEYS[3], unpack(places))
  end
  return size
end

local function size_between(first, last)
  local size = 0
  for _, body in ipairs(redis.call('LRANGE', KEYS[2], first, last)) do size = size + #body end
  return size
end

local function set_lease(header, before)
  if header.expires then
    local ends = math.max(since_1970(header.expires), clock_number)
    local at = math.ceil(ends / 1000) + AFTERLIFE
    for index = 1, 3 do redis.call('PEXPIREAT', KEYS[index], at) end
  elseif before and before.expires then
    for index = 1, 3 do redis.call('PERSIST', KEYS[index]) end
  end
end

-- The index entries of a conversation; `before` is nil for a new one. Only a single server has them at hand.
local function index(header, before)
  if not SINGLE then return end
  local score = since_1970(header.updated)
  redis.call('ZADD', KEYS[5], score, request.id)
  if header.owner then redis.call('ZADD', KEYS[8], score, request.id) end
  if not before then redis.call('ZADD', KEYS[6], 0, header.created .. request.id) end
  if header.owner and not (before and before.owner) then
    redis.call('ZADD', KEYS[9], 0, header.created .. request.id)
  end
  if before and before.expires and (not header.expires or before.owner ~= header.owner) then
    redis.call('ZREM', KEYS[7], expiry_member(before.owner, before.created))
  end
  if header.expires then
    redis.call('ZADD', KEYS[7], since_1970(header.expires), expiry_member(header.owner, header.created))
  end
end

local function unindex(header)
  if not SINGLE then return end
  redis.call('ZREM', KEYS[5], request.id)
  redis.call('ZREM', KEYS[6], header.created .. request.id)
  redis.call('ZREM', KEYS[7], expiry_member(header.owner, header.created))
  if header.owner then
    redis.call('ZREM', KEYS[8], request.id)
    redis.call('ZREM', KEYS[9], header.created .. request.id)
  end
end

local function copied(header)
  local copy = {}
  for field, value in pairs(header) do copy[field] = value end
  return copy
end

-- What the caller needs for the indexes in other slots of a Cluster, behind a status and its numbers.
local function told(status, header, ...)
  local reply = { status, header.owner or '', header.created, header.updated, header.expires or '', ... }
  return reply
end

local before = read_header(KEYS[1])
if before and before.format ~= FORMAT then return { 'format', before.format } end
