-- Index entries that point nowhere go; what stands keeps its own. Only a single server runs this.
local rare = rarely()
local owner = before and before.owner or nil
local swept = 0
if not before then rare.clear_remains() end
if not before or before.created ~= request.created or owner ~= request.owner then
  call('ZREM', KEYS[7], expiry_member(request.owner, request.created))
  if request.owner then rare.disown(request.owner, request.created) end
end
if not before or before.created ~= request.created then
  swept = call('ZREM', KEYS[6], request.created .. request.id)
end
if not before then call('ZREM', KEYS[5], request.id) end
if request.owner and owner ~= request.owner then call('ZREM', KEYS[8], request.id) end
return { 'ok', swept }
