-- Everything of a conversation goes: of this owner (`scope`), at this stamp (`expected`), or only if it has expired.
if not before or (request.scope and before.owner ~= request.scope) then return { 'missing' } end
if request.expected and stamp(before) ~= request.expected then
  return { 'missing' }
end
if request.expired and not expired(before) then return { 'missing' } end
if SINGLE and before.owner ~= request.guess then return { 'owner', before.owner or '' } end
call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
unindex(before)
-- What `adopt` left of it in jaf-py's form is the same conversation.
if SINGLE and call('TYPE', KEYS[4]).ok == 'string' then call('UNLINK', KEYS[4]) end
return told('ok', before, expired(before) and 0 or 1)
