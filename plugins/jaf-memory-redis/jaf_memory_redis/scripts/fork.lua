-- A copy of another conversation, up to, without, a message, as `forks.forked` decides it. The new one's keys come
-- first, as in every script; the three behind them are the parent's, and two more what was laid aside. Only a single
-- server has both at hand.
local rare = rarely()
local behind = request.staged and 2 or 0
local parent_header, parent_bodies = KEYS[#KEYS - behind - 2], KEYS[#KEYS - behind - 1]
local parent_ids = KEYS[#KEYS - behind]
local parent_fields = fields_of(parent_header)
local parent = parent_fields and header_of(parent_fields)
if parent and rare.is_newer(parent) then return { 'newer parent', parent.format } end
if parent and not numbers_of(parent_fields, request.parent) then return { 'unsound parent' } end
if not parent or expired(parent) or (request.scope and parent.owner ~= request.scope) then return { 'missing' } end
if before and expired(before) then return told('expired', before) end
if before then return { 'taken' } end
local stop = rare.ending(parent)
if request.stop then
  stop = tonumber(call('ZSCORE', parent_ids, request.stop) or -1)
  if stop < 0 then return { 'nowhere' } end
end
if call('TYPE', KEYS[4]).ok == 'string' then return { 'legacy' } end
if parent.owner ~= request.guess then return { 'owner', parent.owner or '' } end
local refused = denied('HSET', 'ZADD', 'UNLINK', 'RPUSH') or (parent.expires and denied('PEXPIREAT'))
if refused then return refused end
if call('LLEN', parent_bodies) ~= parent.count or call('ZCARD', parent_ids) ~= parent.count then
  return { 'unsound parent' }
end

local count = request.stop and rare.place(parent, stop, parent_ids) or parent.count
local header = {
  incarnation = request.incarnation, version = 0, created = now, active = now, ttl = parent.ttl,
  expires = not parent.ttl and parent.expires or nil, owner = parent.owner, first = parent.first,
  trimmed = parent.trimmed, count = count, size = parent.size,
}
if parent.gaps then header.gaps = stop - parent.first - count end
local staged = request.staged
if staged and (rare.stamp(parent) ~= staged.expected or staged.count ~= header.count or not rare.is_staged(staged)) then
  staged = nil
end
if not staged and not request.at_once and rare.is_large(header.count, parent) then
  return { 'large', rare.stamp(parent), header.count, parent.size }
end
if staged then
  refused = denied('RENAME', 'PERSIST')
  if refused then return refused end
end
touch(header)
index(header, nil)
if staged then
  rare.take_staged(staged)
  header.size = staged.size
else
  rare.clear_remains()
  -- By range: to copy all and cut it would take as long as the parent is long.
  header.size = copy_messages(parent_bodies, parent_ids, 0, header.count, KEYS[2], KEYS[3])
  if not header.size then
    call('UNLINK', KEYS[2], KEYS[3])
    return { 'unsound parent' }
  end
end
local metadata = {}
local flat = call('HGETALL', parent_header)
for at = 1, #flat, 2 do
  if string.sub(flat[at], 1, 2) == 'm:' and string.sub(flat[at], 1, #RESERVED) ~= RESERVED then
    metadata[#metadata + 1] = flat[at]
    metadata[#metadata + 1] = flat[at + 1]
  end
end
write_header(header, nil, metadata)
set_lease(header, parent)
return told('ok', header, header.count)
