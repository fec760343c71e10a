-- Messages in the places of others, decided for the state that `request.expected` names.
local FAR = 20000 -- such steps, which take a millisecond or two
local rare = rarely()
if not before or rare.stamp(before) ~= request.expected then return { 'other' } end
if SINGLE and before.owner ~= request.guess then return { 'owner', before.owner or '' } end
local refused = denied('LSET', 'ZREMRANGEBYSCORE', 'HSET', 'HDEL', 'ZADD') or (before.expires and denied('PEXPIREAT', 'ZREM'))
if refused then return refused end
if not rare.complete(before) then return rare.damaged(before) end
local function places()
  local found = {}
  for index, position in ipairs(request.positions) do found[index] = rare.place(before, position) end
  return found
end
local staged = request.staged
-- To reach into the middle of a long list takes a step for each 8 KB, and here it is done twice for each message.
if not staged and not request.at_once and #request.positions * before.size / 8192 > FAR then
  return { 'large', rare.stamp(before), before.count, before.size, places() }
end
local header = rare.copied(before)
if staged then
  refused = denied('RENAME', 'PERSIST', 'UNLINK')
  if refused then return refused end
  if staged.count ~= before.count or not rare.is_staged(staged) then return { 'other' } end
  rare.take_staged(staged)
  header.size = staged.size
else
  local at = places()
  for index, position in ipairs(request.positions) do
    local place = at[index]
    header.size = header.size - #call('LINDEX', KEYS[2], place) + #ARGV[1 + given + index]
    call('LSET', KEYS[2], place, ARGV[1 + given + index])
    -- All positions first: an id may go to the place of another that moves too.
    call('ZREMRANGEBYSCORE', KEYS[3], position, position)
  end
  for index, position in ipairs(request.positions) do call('ZADD', KEYS[3], position, ARGV[1 + index]) end
end
rare.unsummarise(0)
touch(header)
write_header(header, before)
set_lease(header, before)
index(header, before)
return told('ok', header, header.version)
