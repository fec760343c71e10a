-- What the scripts that copy messages share; it stands between the prelude and the script.

-- Messages of a conversation, by place from `start` to `stop`, without the latter, behind those in two other keys; their
-- size, or nil where not all of them stand.
local function copy_messages(source, source_ids, start, stop, target, target_ids)
  local size = 0
  for from = start, stop - 1, STEP do
    local to = math.min(from + STEP, stop)
    local bodies = call('LRANGE', source, from, to - 1)
    local named = call('ZRANGE', source_ids, from, to - 1, 'WITHSCORES')
    if #bodies ~= to - from or #named ~= 2 * #bodies then return nil end
    for at = 1, #named, 2 do named[at], named[at + 1] = named[at + 1], named[at] end
    for _, body in ipairs(bodies) do size = size + #body end
    call('RPUSH', target, unpack(bodies))
    call('ZADD', target_ids, unpack(named))
  end
  return size
end
