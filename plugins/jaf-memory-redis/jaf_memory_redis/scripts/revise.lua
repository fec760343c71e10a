-- Messages in the places of others, decided for the state that `request.expected` names.
if not before or stamp(before) ~= request.expected then return { 'other' } end
if SINGLE and before.owner ~= request.guess then return { 'owner', before.owner or '' } end
local refused = denied('LSET', 'ZREMRANGEBYSCORE', 'HSET', 'HDEL', 'ZADD') or (before.expires and denied('PEXPIREAT', 'ZREM'))
if refused then return refused end
if not complete(before) then return damaged(before) end
local header = copied(before)
for index, position in ipairs(request.positions) do
  local place = position - before.first
  header.size = header.size - #call('LINDEX', KEYS[2], place) + #ARGV[1 + given + index]
  call('LSET', KEYS[2], place, ARGV[1 + given + index])
  -- All positions first: an id may go to the place of another that moves too.
  call('ZREMRANGEBYSCORE', KEYS[3], position, position)
end
for index, position in ipairs(request.positions) do call('ZADD', KEYS[3], position, ARGV[1 + index]) end
unsummarise(0)
touch(header)
write_header(header, before)
set_lease(header, before)
index(header, before)
return told('ok', header, header.version)
