-- Single messages go, and the others keep their positions.
local rare = rarely()
if before and expired(before) then before = nil end
if not before or (request.scope and before.owner ~= request.scope) then return { 'missing' } end
if request.version and request.version ~= before.version then return { 'version', before.version } end
if SINGLE and before.owner ~= request.guess then return { 'owner', before.owner or '' } end
local refused = denied('UNLINK', 'LTRIM', 'RPUSH', 'ZREM', 'HSET', 'HDEL', 'ZADD')
  or (before.expires and denied('PEXPIREAT', 'ZREM'))
if refused then return refused end
if not rare.complete(before) then return rare.damaged(before) end

local gone, places, among, lowest = {}, {}, {}, nil
for start = 1, #request.ids, STEP do
  local stop = math.min(start + STEP - 1, #request.ids)
  for offset, found in ipairs(call('ZMSCORE', KEYS[3], unpack(request.ids, start, stop))) do
    local position = tonumber(found or nil)
    if position then
      gone[#gone + 1] = request.ids[start + offset - 1]
      local place = rare.place(before, position)
      places[#places + 1], among[place] = place, true
      lowest = math.min(lowest or position, position)
    end
  end
end
if #gone == 0 then return told('ok', before, 0) end

local header = rare.copied(before)
local left = header.count - #gone
local staged = request.staged
if staged then
  if rare.stamp(before) ~= staged.expected or staged.count ~= left or not rare.is_staged(staged) then staged = nil end
end
-- All behind the first of them is written anew: no command takes an element out of the middle of a list by its place.
local from = math.min(unpack(places, 1, math.min(#places, STEP)))
for start = STEP + 1, #places, STEP do
  from = math.min(from, unpack(places, start, math.min(#places, start + STEP - 1)))
end
if left > 0 and not staged and not request.at_once and rare.is_large(header.count - from, header) then
  return { 'large', rare.stamp(before), header.count, header.size, places }
end
local ending = rare.ending(before)
call('ZRANGE', KEYS[3], 0, 0) -- whoever may not, is told before anything is written
if staged or left == 0 then
  refused = denied('RENAME', 'PERSIST')
  if refused then return refused end
  rare.take_staged(staged or { count = 0 })
  header.size = staged and staged.size or 0
else
  local kept = {}
  for offset, body in ipairs(call('LRANGE', KEYS[2], from, -1)) do
    if among[from + offset - 1] then
      header.size = header.size - #body
    else
      kept[#kept + 1] = body
    end
  end
  -- First what takes no memory, so that it can be done where there is none left.
  if from > 0 then call('LTRIM', KEYS[2], 0, from - 1) else call('LTRIM', KEYS[2], 1, 0) end
  for start = 1, #kept, STEP do call('RPUSH', KEYS[2], unpack(kept, start, math.min(start + STEP - 1, #kept))) end
  for start = 1, #gone, STEP do call('ZREM', KEYS[3], unpack(gone, start, math.min(start + STEP - 1, #gone))) end
end
header.count, header.trimmed = left, true
header.first = left > 0 and tonumber(call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]) or ending
header.gaps = ending - header.first - left
rare.unsummarise(lowest)
touch(header)
write_header(header, before)
set_lease(header, before)
index(header, before)
return told('ok', header, #gone)
