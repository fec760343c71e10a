-- Header and messages of one moment: all of them, or the last `limit` before a position, or the first `limit` behind one;
-- and the first `leading`.
if not before then return false end
local stands = call('LLEN', KEYS[2])
if stands ~= before.count then return { 'damaged', before.count, stands } end
local first, last = 0, before.count - 1
if request.limit then
  if request.before then last = math.min(last, request.before - before.first - 1) end
  if request.after then
    first = math.max(0, request.after + 1 - before.first)
    last = math.min(last, first + request.limit - 1)
  else
    first = math.max(0, last + 1 - request.limit)
  end
end
local bodies = last >= first and call('LRANGE', KEYS[2], first, last) or {}
local fields = request.limit and not request.whole and call('HMGET', KEYS[1], 'f', 'inc', 'v', 'x', 'o', 'p', 'n', 's', 'id')
  or call('HGETALL', KEYS[1])
local leading = request.leading and call('LRANGE', KEYS[2], 0, request.leading - 1) or {}
return { clock, fields, bodies, leading }
