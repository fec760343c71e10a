-- A store or an append, decided as `rules.plan_write` decides it.
if before and expired(before) then return told('expired', before) end
if not before then
  if not request.create then return { 'missing' } end
  if SINGLE and call('TYPE', KEYS[4]).ok == 'string' then return { 'legacy' } end
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
-- On a Cluster the index entries are made first, for this owner and under this moment.
if not SINGLE and (not before or (owner and not before.owner)) then
  local moment_of_creation = before and before.created or request.created or request.moment or now
  if request.announced ~= moment_of_creation then return { 'announce', moment_of_creation, now } end
end
local adding = before and not request.replace
local leases = (before and before.expires) or (not before and (request.expires or request.ttl))
local refused = denied('HSET', 'RPUSH', 'ZADD') or (leases and denied('PEXPIREAT', 'ZREM'))
if not (refused or adding) then refused = denied('UNLINK', 'HDEL') end
if not refused and request.cap then refused = denied('LTRIM', 'ZREMRANGEBYSCORE') end
if refused then return refused end

local staged = request.staged
if staged then
  local refused_too = denied('RENAME', 'PERSIST', 'UNLINK')
  if refused_too then return refused_too end
  if (before and rarely().stamp(before)) ~= staged.expected or not rarely().is_staged(staged) then return { 'changed' } end
end

-- The list and its part that are to be added; see `place_ids`.
local list, first, fresh = ARGV, 2, staged and staged.fresh or given

local actual = before and before.version or 0
local expected = not request.expected or request.expected == actual
local too_much = expected and request.metadata and rarely().heavy(before)
local placed = false
if request.cap and before and before.gaps then call('ZRANGE', KEYS[3], 0, 0) end -- whoever may not, is told here
if adding and before.count > 0 and given > 0 then
  -- Nearly always none is held, and to place their ids tells so as well. Nothing can be refused behind that.
  placed = expected and not too_much and place_ids(ARGV, 2, given, before.first + before.count + (before.gaps or 0), 'NX')
  -- What tells whether all of it stands costs least behind a write: how many ids there are now, and how many bodies.
  if placed and call('ZCARD', KEYS[3]) ~= before.count + given then return rarely().damaged(before, true) end
end
if adding and not placed then
  local function held_positions()
    local positions, any = {}, false
    for start = 1, given, STEP do
      local stop = math.min(start + STEP - 1, given)
      for offset, position in ipairs(call('ZMSCORE', KEYS[3], unpack(ARGV, start + 1, stop + 1))) do
        positions[start + offset - 1] = position
        any = any or position
      end
    end
    return any and positions
  end

  -- Which of the messages are held, and equal; those with other bytes are for Python to compare.
  local function compare(positions)
    local last_held, differing = 0, {}
    local known = request.alike == rarely().stamp(before)
    -- To reach into the middle of a long list costs, so that what stands together is fetched together.
    local fetched, from = {}, -1
    for index = 1, given do
      if positions[index] then
        last_held = index
        local place = tonumber(positions[index]) - before.first
        if before.gaps then place = rarely().place(before, tonumber(positions[index])) end
        if not known and not fetched[place - from + 1] then
          from = place
          fetched = call('LRANGE', KEYS[2], from, from + math.min(99, given - index))
        end
        local body = not known and fetched[place - from + 1]
        if body and body ~= ARGV[given + 1 + index] then
          differing[#differing + 1] = index - 1
          differing[#differing + 1] = body
        end
      end
    end
    local ids, bodies = {}, {}
    for index = 1, given do
      -- On a trimmed conversation, what stands before a held message was there once.
      if not positions[index] and not (before.trimmed and index < last_held) then
        ids[#ids + 1] = ARGV[index + 1]
        bodies[#bodies + 1] = ARGV[given + 1 + index]
      end
    end
    list, first, fresh = ids, 1, #ids
    for index = 1, fresh do list[fresh + index] = bodies[index] end
    return differing
  end

  local positions = before.count > 0 and given > 0 and held_positions()
  if positions then
    local differing = compare(positions)
    if #differing > 0 then return { 'differs', rarely().stamp(before), differing } end
  end
  local checks = rarely()
  if not checks.complete(before) then return checks.damaged(before) end
end
local labelled = request.metadata or (owner and not (before and before.owner))
if adding and fresh == 0 and (given > 0 or staged or not labelled) then
  -- WAIT counts from this connection's last write: a retry has to make one, to ask about the first attempt's.
  if request.confirm then call('HSET', KEYS[1], 'v', before.version) end
  return told('same', before, before.version, before.count, 0)
end
if not expected then return { 'version', actual } end
if too_much then return { 'heavy', rarely().stamp(before), too_much } end

local kept = adding and before.count or 0
local cut = not staged and request.cap and math.max(0, kept + fresh - request.cap) or 0
local rare = cut > 0 and rarely()
if cut > 0 and before and not request.at_once and rare.is_large(cut, before) then
  if placed then rare.take_back(before) end
  return { 'large' }
end

-- All is checked; from here on the script writes.
local header = before
if before then
  -- What it was, as far as that is looked at below.
  before = {
    count = before.count, first = before.first, trimmed = before.trimmed, created = before.created,
    active = before.active, expires = before.expires, ttl = before.ttl, owner = before.owner, gaps = before.gaps,
  }
end
header = header or {
  incarnation = request.incarnation, version = 0, created = request.created or request.moment or now,
  active = request.active or request.moment or now, amended = request.amended,
  expires = request.expires, ttl = request.ttl, first = 0, count = 0, size = 0, trimmed = false,
}
if before and request.replace then
  if not staged then call('UNLINK', KEYS[2], KEYS[3]) end
  rarely().unsummarise(0)
  header.first, header.count, header.size, header.trimmed = 0, 0, 0, false
  if header.gaps then header.gaps = 0 end
end
-- Metadata alone, or an owner, leave the conversation where it stands in a list.
local still = adding and fresh == 0 and cut == 0 and not (staged and staged.cut > 0)
touch(header, still and rarely())
-- An import that goes on with what it made leaves the times, as `rules._goes_on` decides it.
if adding and request.active and rarely().stands_as(before, request.active, request.amended) then
  header.active, header.amended, header.expires = before.active, nil, before.expires
end
header.owner = owner
index(header, before)
if not before then rarely().clear_remains() end
if staged then
  rarely().take_staged(staged)
  header.first, header.count, header.size = staged.first, staged.count - fresh, staged.size
  if header.gaps then header.gaps = staged.gaps end
  header.trimmed = header.trimmed or staged.cut > 0
else
  if not placed then place_ids(list, first, fresh, header.first + header.count + (header.gaps or 0)) end
  local size, length = add_bodies(list, first, fresh)
  if placed and length ~= before.count + fresh then
    call('LTRIM', KEYS[2], 0, -fresh - 1)
    index(before, before)
    return rarely().damaged(before, true)
  end
  header.size = header.size + size
end
if cut > 0 then
  header.size = header.size - rare.size_between(0, cut - 1)
  call('LTRIM', KEYS[2], cut, -1)
  local oldest = header.first + cut
  if header.gaps then
    oldest = rare.position(header, cut)
    header.gaps = header.gaps - (oldest - header.first - cut)
  end
  header.first = oldest
  call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. rare.whole(header.first))
end
header.count = header.count + fresh - cut
header.trimmed = header.trimmed or cut > 0 or request.dropped or false
write_header(header, before, request.metadata)
set_lease(header, before)
return told('ok', header, header.version, header.count, fresh)
