-- One message and all after it go.
local rare = rarely()
if before and expired(before) then before = nil end
if not before or (request.scope and before.owner ~= request.scope) then return { 'missing' } end
if request.version and request.version ~= before.version then return { 'version', before.version } end
if SINGLE and before.owner ~= request.guess then return { 'owner', before.owner or '' } end
local refused = denied('UNLINK', 'LTRIM', 'ZREMRANGEBYSCORE', 'HSET', 'HDEL', 'ZADD')
  or (before.expires and denied('PEXPIREAT', 'ZREM'))
if refused then return refused end
if not rare.complete(before) then return rare.damaged(before) end
local position = call('ZSCORE', KEYS[3], request.message)
if not position then return told('ok', before, 0) end

local header = rare.copied(before)
local kept = rare.place(header, tonumber(position))
local removed = header.count - kept
local staged = request.staged
if staged then
  if rare.stamp(before) ~= staged.expected or staged.count ~= kept or not rare.is_staged(staged) then staged = nil end
end
if kept > 0 and not staged and not request.at_once and rare.is_large(removed, header) then
  return { 'large', rare.stamp(before), kept, header.size }
end
if staged or kept == 0 then
  refused = denied('RENAME', 'PERSIST')
  if refused then return refused end
  rare.take_staged(staged or { count = 0 })
  header.size = staged and staged.size or 0
else
  header.size = header.size - rare.size_between(kept, -1)
  call('LTRIM', KEYS[2], 0, kept - 1)
  call('ZREMRANGEBYSCORE', KEYS[3], position, '+inf')
end
header.count = kept
if header.gaps then header.gaps = tonumber(position) - header.first - kept end
rare.unsummarise(tonumber(position))
touch(header)
write_header(header, before)
set_lease(header, before)
index(header, before)
return told('ok', header, removed)
