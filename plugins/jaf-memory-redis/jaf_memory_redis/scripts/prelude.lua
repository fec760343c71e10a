-- What scripts over one conversation share, behind `header.lua`.
local clock_number = tonumber(score_of_now)

local function moment(microseconds)
  local seconds = math.floor(microseconds / 1000000)
  local high = math.floor((seconds + EPOCH) / 1000000)
  -- As three short numbers: a long one takes several times as long to write.
  return string.format('%06d%06d%06d', high, seconds + EPOCH - high * 1000000, microseconds - seconds * 1000000)
end

local function since_1970(text)
  return (tonumber(string.sub(text, 1, 12)) - EPOCH) * 1000000 + tonumber(string.sub(text, 13))
end

local function is_count(number)
  return number and number >= 0 and number < 9007199254740992 and number % 1 == 0
end

local function header_of(fields)
  return {
    -- Absent fields come as false; nil compares equal with what a request leaves out.
    format = fields[FORMED], incarnation = fields[INCARNATION] or nil, version = tonumber(fields[VERSION]),
    created = fields[CREATED], active = fields[ACTIVE], expires = fields[EXPIRES] or nil, ttl = fields[TTL] or nil,
    owner = fields[OWNER] or nil, first = tonumber(fields[FIRST]), trimmed = fields[TRIMMED] == '1',
    count = tonumber(fields[COUNT]), size = tonumber(fields[SIZE]), id = fields[ID], gaps = fields.gaps,
  }
end

-- A command that is refused half-way would leave the first half: each script asks first, and touches nothing else before.
-- Redis 6.2 cannot be asked; there the provider tries the commands out on a key of its own (`probe.lua`).
local function denied(...)
  local check = redis.acl_check_cmd
  if not check then return request.probed == nil and { 'unprobed' } or nil end
  for index = 1, select('#', ...) do
    local name, allowed = (select(index, ...)), nil
    -- As many arguments as Redis 8 wants to see, and as texts: a number would be written anew each time.
    if name == 'RENAME' then
      allowed = check(name, KEYS[1], KEYS[1])
    elseif name == 'UNLINK' or name == 'PERSIST' or name == 'TYPE' then
      allowed = check(name, KEYS[1])
    else
      -- On a single server the indexes have other names, which the user may not be allowed either.
      allowed = check(name, name == 'ZADD' and SINGLE and KEYS[5] or KEYS[1], '0', '0')
    end
    if not allowed then return { 'denied', name } end
  end
end

local function expired(header)
  return header.expires and header.expires <= now
end

local function expiry_member(owner, created)
  return request.id .. '\0' .. (owner or '') .. '\0' .. created
end

-- `rules.touched`: one more version, no time backwards, the expiry renewed. What changes no messages brings `rare`: it leaves
-- the moment of the last activity (`u`) alone, and with it the place in a list, and sets that of the last change (`a`), where
-- that is later. So an append, which sets the other, need not know this one.
local function touch(header, rare)
  if header.ttl and (header.version > 0 or not header.expires) then
    -- On a Cluster a conversation is made under a moment that was told before.
    local from = header.version == 0 and request.moment and since_1970(request.moment) or clock_number
    header.expires = moment(from + math.floor(tonumber(header.ttl) * 1000000 + 0.5))
  end
  header.version = header.version + 1
  if rare then
    header.amended = rare.amended(header)
  elseif header.version > 1 and header.active < now then
    header.active = now
  end
end

-- `before` is nil for a new header; of one that stands, only what changed is written.
local function write_header(header, before, metadata)
  local fields = { 'v', header.version, 'u', header.active, 'n', header.count, 's', header.size }
  local size = 8
  if not before then
    fields = {
      'v', header.version, 'u', header.active, 'n', header.count, 's', header.size,
      'f', FORMAT, 'id', request.id, 'inc', header.incarnation, 'c', header.created,
    }
    size = 16
  end
  if not before or before.first ~= header.first or before.trimmed ~= header.trimmed then
    fields[size + 1], fields[size + 2] = 'p', header.first
    fields[size + 3], fields[size + 4] = 'k', header.trimmed and '1' or '0'
    size = size + 4
  end
  if header.gaps then
    fields[size + 1], fields[size + 2], size = 'f', header.gaps > 0 and GAPPED or FORMAT, size + 2
    if header.gaps > 0 then fields[size + 1], fields[size + 2], size = 'g', header.gaps, size + 2 end
  end
  if header.expires and not (before and before.expires == header.expires) then
    fields[size + 1], fields[size + 2] = 'x', header.expires
    size = size + 2
  end
  if header.ttl and not (before and before.ttl == header.ttl) then
    fields[size + 1], fields[size + 2] = 't', header.ttl
    size = size + 2
  end
  if header.owner and not (before and before.owner) then
    fields[size + 1], fields[size + 2] = 'o', header.owner
    size = size + 2
  end
  if header.amended then fields[size + 1], fields[size + 2] = 'a', header.amended end
  call('HSET', KEYS[1], unpack(fields))
  if header.gaps == 0 and before then call('HDEL', KEYS[1], 'g') end
  if before and before.expires and not header.expires then call('HDEL', KEYS[1], 'x') end
  if before and before.ttl and not header.ttl then call('HDEL', KEYS[1], 't') end
  for start = 1, metadata and #metadata or 0, STEP do
    call('HSET', KEYS[1], unpack(metadata, start, math.min(start + STEP - 1, #metadata)))
  end
end

-- In the two below, `list` holds `count` ids from `first` on, and then as many bodies.
-- With 'NX' it is all of them or none: an id that is held makes it `false`. What is held stands below `position`.
local function place_ids(list, first, count, position, nx)
  local added = 0
  for start = 0, count - 1, STEP do
    local places = { position + start, list[first + start] }
    for index = start + 1, math.min(start + STEP, count) - 1 do
      local size = #places
      places[size + 1], places[size + 2] = position + index, list[first + index]
    end
    if nx then
      -- A refusal (no memory, for one) is no answer to a request that may have nothing to write.
      local answer = redis.pcall('ZADD', KEYS[3], nx, unpack(places))
      -- But who is a replica does not know what is held.
      if type(answer) == 'table' and string.find(answer.err, 'READONLY', 1, true) then
        call('ZADD', KEYS[3], nx, unpack(places)) -- the same refusal, and now it is the script's
      end
      added = added + (tonumber(answer) or 0)
    else
      call('ZADD', KEYS[3], unpack(places))
    end
  end
  if nx and added < count then
    if added > 0 then call('ZREMRANGEBYSCORE', KEYS[3], position, '+inf') end
    return false
  end
  return true
end

local function add_bodies(list, first, count)
  local size, length = 0, nil
  for start = first + count, first + 2 * count - 1, STEP do
    local stop = math.min(start + STEP, first + 2 * count) - 1
    length = call('RPUSH', KEYS[2], unpack(list, start, stop))
    for index = start, stop do size = size + #list[index] end
  end
  return size, length
end

local function set_lease(header, before)
  if header.expires then
    local ends = math.max(since_1970(header.expires), clock_number)
    local at = math.ceil(ends / 1000) + AFTERLIFE
    for index = 1, 3 do call('PEXPIREAT', KEYS[index], at) end
  elseif before and before.expires then
    for index = 1, 3 do call('PERSIST', KEYS[index]) end
  end
end

-- The index entries of a conversation; `before` is nil for a new one. Only a single server has them at hand.
local function index(header, before)
  if not SINGLE then return end
  local score = header.active == now and score_of_now or since_1970(header.active)
  call('ZADD', KEYS[5], score, request.id)
  if header.owner then call('ZADD', KEYS[8], score, request.id) end
  if not before then call('ZADD', KEYS[6], 0, header.created .. request.id) end
  -- Who owns any is told among all, too. Where that stands, and the owner's own index does not, a hand on the server has
  -- removed it; it is not begun anew, so that the next search sees what is missing, and makes it again.
  if header.owner and not (before and before.owner)
    and (call('ZADD', KEYS[6], 0, 'o:' .. header.owner) == 1 or call('EXISTS', KEYS[9]) == 1) then
    call('ZADD', KEYS[9], 0, header.created .. request.id)
  end
  if before and before.expires and (not header.expires or before.owner ~= header.owner) then
    call('ZREM', KEYS[7], expiry_member(before.owner, before.created))
  end
  if header.expires then
    call('ZADD', KEYS[7], since_1970(header.expires), expiry_member(header.owner, header.created))
  end
end

-- What the caller needs for the indexes in other slots of a Cluster, behind a status and its numbers.
local function told(status, header, ...)
  local reply = { status, header.owner or '', header.created, header.active, header.expires or '', ... }
  return reply
end

-- What the usual append does not need. To make a function takes time in each call of a script, so these are made only where
-- one of them is wanted.
local function rarely()
  local rare = {}

  -- For text; a command takes numbers as they are, exact up to 2^53.
  function rare.whole(number)
    return string.format('%.0f', number)
  end

  function rare.stamp(header)
    return header.incarnation .. ':' .. rare.whole(header.version)
  end

  function rare.is_newer(header)
    local format = header.format
    return format and format ~= FORMAT and format ~= GAPPED and #format < 18 and string.find(format, '^[1-9]%d*$')
  end

  function rare.copied(header)
    return {
      format = header.format, incarnation = header.incarnation, version = header.version, created = header.created,
      active = header.active, expires = header.expires, ttl = header.ttl, owner = header.owner, first = header.first,
      trimmed = header.trimmed, count = header.count, size = header.size, gaps = header.gaps,
    }
  end

  -- The position behind the newest message, which the next one gets.
  function rare.ending(header)
    return header.first + header.count + (header.gaps or 0)
  end

  -- How many messages stand before a position: where there are gaps, that is not what it says itself.
  function rare.place(header, position, ids)
    if not header.gaps then return position - header.first end
    return call('ZCOUNT', ids or KEYS[3], '-inf', '(' .. rare.whole(position))
  end

  -- The position of the message at a place; `ending` where none is.
  function rare.position(header, place)
    if not header.gaps then return header.first + place end
    return tonumber(call('ZRANGE', KEYS[3], place, place, 'WITHSCORES')[2] or rare.ending(header))
  end

  -- What can be told of a header that cannot be read, for those that remove it.
  function rare.mended(header)
    header.version, header.incarnation = is_count(header.version) and header.version or 0, header.incarnation or ''
    header.created = is_moment(header.created) and header.created or now
    header.active = is_moment(header.active) and header.active or now
    header.expires = is_moment(header.expires) and header.expires or nil
    if header.owner == '' then header.owner = nil end
  end

  -- The later one of now, of the last activity, and of the last change.
  function rare.amended(header)
    local latest = header.active < now and now or header.active
    local before = call('HGET', KEYS[1], 'a')
    return is_moment(before) and before > latest and before or latest
  end

  -- Whether these are the moments of the last activity and of the last change, the latter where it is later.
  function rare.stands_as(header, active, amended)
    if header.active ~= active then return false end
    local stored = call('HGET', KEYS[1], 'a')
    return (is_moment(stored) and stored > active and stored or nil) == amended
  end

  -- `rules.unsummarised`: what was removed must not live on in a summary that reaches position `from`.
  function rare.unsummarise(from)
    local summary = call('HGET', KEYS[1], SUMMARY)
    if not summary then return end
    -- Its first member; in any other form it is dropped rather than kept too long.
    local reaches = tonumber(string.match(summary, '^{"position":(%d+)'))
    if not reaches or reaches >= from then call('HDEL', KEYS[1], SUMMARY) end
  end

  -- Eviction, or a script that died half-way, takes one key and leaves the others. Without a header there is no
  -- conversation: whatever else stands under the name is nobody's, and goes before anything new is put there.
  function rare.clear_remains()
    -- Only where there are any: behind a first write Redis no longer asks for the memory of the next ones.
    if call('EXISTS', KEYS[2], KEYS[3]) > 0 then call('UNLINK', KEYS[2], KEYS[3]) end
  end

  -- Whether bodies and ids are as many as the header says.
  function rare.complete(header)
    return call('LLEN', KEYS[2]) == header.count and call('ZCARD', KEYS[3]) == header.count
  end

  -- What an append had placed before it saw that.
  function rare.take_back(header)
    call('ZREMRANGEBYSCORE', KEYS[3], rare.ending(header), '+inf')
  end

  function rare.damaged(header, placed)
    if placed then rare.take_back(header) end
    local stand = call('LLEN', KEYS[2])
    return { 'damaged', header.count, stand == header.count and call('ZCARD', KEYS[3]) or stand }
  end

  -- Whether metadata may be too large with the request's merged in, but for what Python has weighed already; if so, the
  -- header's fields. Counted as `rules.check_metadata_size` counts: `m:` stands for the colon and the comma.
  function rare.heavy(header)
    local most, patch = request.most, request.metadata
    if not (header and most and patch) or #patch == 0 or request.weighed == rare.stamp(header) then return nil end
    local fields = call('HGETALL', KEYS[1])
    local after, any = {}, false
    for at = 1, #fields, 2 do
      if string.sub(fields[at], 1, 2) == 'm:' then after[fields[at]], any = fields[at + 1], true end
    end
    for at = 1, #patch, 2 do after[patch[at]] = patch[at + 1] end
    local size, escaped = 1, false
    for field, value in pairs(after) do
      if string.sub(field, 1, #RESERVED) ~= RESERVED then
        size = size + #field + #value
        -- With a lone surrogate anywhere all is escaped, to three times the bytes at most.
        escaped = escaped or string.find(field, '\\ud', 1, true) or string.find(value, '\\ud', 1, true)
      end
    end
    return any and (escaped and 3 * size or size) > most and fields
  end

  function rare.size_between(first, last)
    local size = 0
    for _, body in ipairs(call('LRANGE', KEYS[2], first, last)) do size = size + #body end
    return size
  end

  -- Whether that many messages, of a conversation with that header, are too many for one script.
  function rare.is_large(count, header)
    return count > MANY or (count > 1 and count * (header.size / math.max(1, header.count)) > HEAVY)
  end

  -- Whether what was laid aside (`stage.lua`) is all there.
  function rare.is_staged(staged)
    return call('LLEN', KEYS[#KEYS - 1]) == staged.count and call('ZCARD', KEYS[#KEYS]) == staged.count
  end

  -- It takes the place of what stands, whatever its size: two names are changed, and memory is freed behind our back.
  function rare.take_staged(staged)
    call('UNLINK', KEYS[2], KEYS[3])
    if staged.count > 0 then
      call('RENAME', KEYS[#KEYS - 1], KEYS[2])
      call('RENAME', KEYS[#KEYS], KEYS[3])
      call('PERSIST', KEYS[2])
      call('PERSIST', KEYS[3])
    end
  end

  -- With the last entry of an owner goes what says that there are any.
  function rare.disown(owner, created)
    if call('ZREM', KEYS[9], created .. request.id) == 1 and call('EXISTS', KEYS[9]) == 0 then
      call('ZREM', KEYS[6], 'o:' .. owner)
    end
  end

  function rare.unindex(header)
    if not SINGLE then return end
    call('ZREM', KEYS[5], request.id)
    call('ZREM', KEYS[6], header.created .. request.id)
    call('ZREM', KEYS[7], expiry_member(header.owner, header.created))
    if header.owner then
      call('ZREM', KEYS[8], request.id)
      rare.disown(header.owner, header.created)
    end
  end

  return rare
end

local before = fields and header_of(fields)
if before and before.format ~= FORMAT and rarely().is_newer(before) then return { 'format', before.format } end
if before and not version then
  if not request.unsound then return { 'unsound' } end
  rarely().mended(before)
end
if before and request.orphan then before.owner = nil end -- it is no text, and names nobody
