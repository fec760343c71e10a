-- A store or an append, decided as `rules.plan_write` decides it.
if before and expired(before) then return told('expired', before) end
if not before then
  if not request.create then return { 'missing' } end
  if SINGLE and redis.call('TYPE', KEYS[4]).ok == 'string' then return { 'legacy' } end
  -- On a Cluster the index entries are made first, under this moment.
  if request.probe then return { 'absent', now } end
else
  local foreign = before.owner and request.user and request.user ~= before.owner
  if request.scope and before.owner ~= request.scope then
    if not request.create then return { 'missing' } end
    foreign = true
  end
  if foreign then return { 'foreign' } end
end
local owner = (before and before.owner) or request.user
if SINGLE and owner ~= request.guess then return { 'owner', owner or '' } end

local ids, bodies = request.ids, request.bodies

-- Which of the messages are held, and equal; those with other bytes are for Python to compare.
local function held_positions()
  local positions, any = {}, false
  for start = 1, #ids, STEP do
    local stop = math.min(start + STEP - 1, #ids)
    for offset, position in ipairs(redis.call('ZMSCORE', KEYS[3], unpack(ids, start, stop))) do
      positions[start + offset - 1] = position
      any = any or position
    end
  end
  return any and positions
end

local function fresh_messages(positions)
  local last_held, differing = 0, {}
  local known = request.alike == stamp(before)
  for index = 1, #ids do
    if positions[index] then
      last_held = index
      local body = not known and redis.call('LINDEX', KEYS[2], tonumber(positions[index]) - before.first)
      if body and body ~= bodies[index] then
        differing[#differing + 1] = index - 1
        differing[#differing + 1] = body
      end
    end
  end
  local fresh_ids, fresh_bodies = {}, {}
  for index = 1, #ids do
    -- On a trimmed conversation, what stands before a held message was there once.
    if not positions[index] and not (before.trimmed and index < last_held) then
      fresh_ids[#fresh_ids + 1] = ids[index]
      fresh_bodies[#fresh_bodies + 1] = bodies[index]
    end
  end
  return fresh_ids, fresh_bodies, differing
end

local given = #ids
local adding = before and not request.replace
if adding and before.count > 0 and given > 0 then
  local positions = held_positions()
  if positions then
    local differing
    ids, bodies, differing = fresh_messages(positions)
    if #differing > 0 then
      return { 'differs', stamp(before), differing }
    end
  end
end
local labelled = request.metadata or (owner and not (before and before.owner))
if adding and #ids == 0 and (given > 0 or not labelled) then
  -- WAIT counts from this connection's last write: a retry has to make one, to ask about the first attempt's.
  if request.confirm then redis.call('HSET', KEYS[1], 'v', before.version) end
  return told('same', before, before.version, before.count, 0)
end
local actual = before and before.version or 0
if request.expected and request.expected ~= actual then return { 'version', actual } end

-- All is checked; from here on the script writes.
local header = before and copied(before) or {
  incarnation = request.incarnation, version = 0, created = request.created or request.moment or now,
  updated = request.moment or now,
  expires = request.expires, ttl = request.ttl, first = 0, count = 0, size = 0, trimmed = false,
}
if before and request.replace then
  redis.call('UNLINK', KEYS[2], KEYS[3])
  unsummarise(0)
  header.first, header.count, header.size, header.trimmed = 0, 0, 0, false
end
local cut = request.cap and math.max(0, header.count + #ids - request.cap) or 0
touch(header)
header.owner = owner
header.size = header.size + add_messages(ids, bodies, header.first + header.count)
if cut > 0 then
  header.size = header.size - size_between(0, cut - 1)
  redis.call('LTRIM', KEYS[2], cut, -1)
  header.first = header.first + cut
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. whole(header.first))
end
header.count = header.count + #ids - cut
header.trimmed = header.trimmed or cut > 0 or request.dropped
write_header(header, before, request.metadata)
set_lease(header, before)
index(header, before)
return told('ok', header, header.version, header.count, #ids)
