-- Header and messages of one moment: all of them, or the last `limit` before a position, or the first `limit` behind one;
-- and the first `leading`.
if not before then return false end
local stands = call('LLEN', KEYS[2])
if stands ~= before.count then return { 'damaged', before.count, stands } end
local first, last = 0, before.count - 1
local rare = before.gaps and rarely()
if rare and call('ZCARD', KEYS[3]) ~= before.count then return rare.damaged(before) end
if request.limit then
  if request.before then
    local stop = rare and rare.place(before, request.before) or request.before - before.first
    last = math.min(last, stop - 1)
  end
  if request.after then
    first = math.max(0, rare and rare.place(before, request.after + 1) or request.after + 1 - before.first)
    last = math.min(last, first + request.limit - 1)
  else
    first = math.max(0, last + 1 - request.limit)
  end
end
local bodies = last >= first and call('LRANGE', KEYS[2], first, last) or {}
local fields = request.limit and not request.whole and call('HMGET', KEYS[1], 'f', 'inc', 'v', 'x', 'o', 'p', 'n', 's', 'id')
  or call('HGETALL', KEYS[1])
local lead = request.leading
if rare and lead then lead = math.min(lead, rare.place(before, lead), first) end
local leading = lead and lead > 0 and call('LRANGE', KEYS[2], 0, lead - 1) or {}
if not rare then return { clock, fields, bodies, leading } end
-- The positions of what is shown, and how many have no message.
local places = last >= first and call('ZRANGE', KEYS[3], first, last, 'WITHSCORES') or {}
local positions = {}
for at = 2, #places, 2 do positions[at / 2] = places[at] end
return { clock, call('HGETALL', KEYS[1]), bodies, leading, positions, before.gaps }
