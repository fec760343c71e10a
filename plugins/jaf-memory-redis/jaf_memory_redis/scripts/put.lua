-- A whole record in the place of the one that stands at `request.expected`, or of none.
local rare = rarely()
if (before and rare.stamp(before)) ~= request.expected then return { 'other' } end
if not before and SINGLE and not request.adopting and call('TYPE', KEYS[4]).ok == 'string' then return { 'legacy' } end
if SINGLE and before and before.owner ~= request.guess then return { 'owner', before.owner or '' } end
local refused = denied('UNLINK', 'HSET', 'RPUSH', 'ZADD', 'ZREM') or (request.expires and denied('PEXPIREAT'))
if refused then return refused end

local staged = request.staged
if staged then
  refused = denied('RENAME', 'PERSIST')
  if refused then return refused end
  if not rare.is_staged(staged) then return { 'changed' } end
end

local header = {
  incarnation = request.incarnation, version = request.version, created = request.created,
  active = request.active, amended = request.amended, expires = request.expires, ttl = request.ttl, owner = request.owner,
  first = request.first, trimmed = request.trimmed, count = given, gaps = request.gaps, size = 0,
}
if before then
  rare.unindex(before)
  call('UNLINK', KEYS[1])
end
-- KEYS[8..9] are the old owner's where there are more.
if #KEYS - (request.more or 0) > 9 then KEYS[8], KEYS[9] = KEYS[10], KEYS[11] end
index(header, nil)
if staged then
  rare.take_staged(staged)
  header.count, header.size = staged.count, staged.size
else
  rare.clear_remains()
  if request.positions then
    for place, position in ipairs(request.positions) do call('ZADD', KEYS[3], position, ARGV[1 + place]) end
  else
    place_ids(ARGV, 2, given, header.first)
  end
  header.size = add_bodies(ARGV, 2, given)
end
write_header(header, nil, request.metadata)
-- What was moved in: erasing it reaches the string that it came from, and no other.
if request.adopting then call('HSET', KEYS[1], 'j', '1') end
set_lease(header, nil)
return told('ok', header, header.version)
