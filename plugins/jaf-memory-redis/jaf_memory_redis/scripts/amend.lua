-- Metadata, a first owner, or the expiry of a conversation, as `rules.amended` decides it.
if before and expired(before) then before = nil end
if not before or (request.scope and before.owner ~= request.scope) then return { 'missing' } end
if request.user and before.owner and request.user ~= before.owner then return { 'foreign' } end
if request.expected and request.expected ~= stamp(before) then return { 'stamp', before.version } end
local owner = before.owner or request.user
if SINGLE and owner ~= request.guess then return { 'owner', owner or '' } end

local header = copied(before)
header.owner = owner
if request.lease then
  header.ttl = request.ttl
  header.expires = nil
end
touch(header)
write_header(header, before, request.metadata)
set_lease(header, before)
index(header, before)
return told('ok', header, header.version)
