-- One message and all after it go.
if before and expired(before) then before = nil end
if not before or (request.scope and before.owner ~= request.scope) then return { 'missing' } end
if SINGLE and before.owner ~= request.guess then return { 'owner', before.owner or '' } end
local refused = denied('UNLINK', 'LTRIM', 'ZREMRANGEBYSCORE', 'HSET', 'HDEL', 'ZADD')
  or (before.expires and denied('PEXPIREAT', 'ZREM'))
if refused then return refused end
if not complete(before) then return { 'damaged', before.count, call('LLEN', KEYS[2]) } end
local position = call('ZSCORE', KEYS[3], request.message)
if not position then return told('ok', before, 0) end

local header = copied(before)
local kept = tonumber(position) - header.first
local removed = header.count - kept
header.size = header.size - size_between(kept, -1)
header.count = kept
if kept == 0 then
  call('UNLINK', KEYS[2])
else
  call('LTRIM', KEYS[2], 0, kept - 1)
end
call('ZREMRANGEBYSCORE', KEYS[3], position, '+inf')
unsummarise(tonumber(position))
touch(header)
write_header(header, before)
set_lease(header, before)
index(header, before)
return told('ok', header, removed)
