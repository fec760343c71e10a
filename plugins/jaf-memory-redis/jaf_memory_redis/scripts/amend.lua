-- Metadata, a first owner, or the expiry of a conversation, as `rules.amended` decides it.
local rare = rarely()
if before and expired(before) then before = nil end
if not before or (request.scope and before.owner ~= request.scope) then return { 'missing' } end
if request.user and before.owner and request.user ~= before.owner then return { 'foreign' } end
if request.expected and request.expected ~= rare.stamp(before) then return { 'stamp', before.version } end
if request.version and request.version ~= before.version then return { 'version', before.version } end
local owner = before.owner or request.user
if SINGLE and owner ~= request.guess then return { 'owner', owner or '' } end
-- On a Cluster the new owner's index entries are made first.
if not SINGLE and owner and not before.owner and request.announced ~= before.created then
  return { 'announce', before.created, now }
end
local refused = denied('HSET', 'HDEL', 'ZADD')
  or ((before.expires or request.ttl) and denied('PEXPIREAT', 'PERSIST', 'ZREM'))
if refused then return refused end
local too_much = rare.heavy(before)
if too_much then return { 'heavy', rare.stamp(before), too_much } end

local header = rare.copied(before)
header.owner = owner
if request.lease then
  header.ttl = request.ttl
  header.expires = nil
end
touch(header, rare)
index(header, before)
write_header(header, before, request.metadata)
local removed = request.removed or {}
for start = 1, #removed, STEP do
  call('HDEL', KEYS[1], unpack(removed, start, math.min(start + STEP - 1, #removed)))
end
set_lease(header, before)
return told('ok', header, header.version)
