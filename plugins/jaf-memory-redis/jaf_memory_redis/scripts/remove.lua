-- Everything of a conversation goes: of this owner (`scope`), at this stamp (`expected`) or version, or only if it has
-- expired.
local rare = rarely()
if not before then
  local refused = denied('UNLINK')
  if refused then return refused end
  rare.clear_remains()
  return { 'missing' }
end
-- The header of another conversation, which a hand has put here, tells of no owner; the index that names this one does.
local named = request.named and before.id ~= request.id
if request.scope and before.owner ~= request.scope and not named then return { 'missing' } end
if request.expected and rare.stamp(before) ~= request.expected then
  return { 'missing' }
end
if request.version and not expired(before) and request.version ~= before.version then
  return { 'version', before.version }
end
if request.expired and not expired(before) then return { 'missing' } end
if SINGLE and before.owner ~= request.guess then return { 'owner', before.owner or '' } end
local refused = denied('UNLINK', 'ZREM', 'TYPE', 'GETRANGE')
if refused then return refused end
local mark = redis.pcall('HGET', KEYS[1], 'j')
if type(mark) == 'table' and not string.find(mark.err, 'WRONGTYPE', 1, true) then
  call('HGET', KEYS[1], 'j') -- the same refusal, and now it is the script's
end
local adopted = type(mark) == 'string' and 1 or 0
call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
rare.unindex(before)
-- What `adopt` left of it in jaf-py's form is the same conversation; any other string there is somebody else's.
if SINGLE and adopted == 1 and call('TYPE', KEYS[4]).ok == 'string'
  and string.find(call('GETRANGE', KEYS[4], 0, 4095), '"conversation_id"', 1, true) then
  call('UNLINK', KEYS[4])
end
return told('ok', before, expired(before) and 0 or 1, adopted)
