-- The usual append: messages and nothing else (`request.plain`), for a conversation that stands, has no gaps, never expires, and was
-- active before now, as its place in the indexes then says.
-- It does what `write.lua` behind it does, without what such a one never needs, and it refuses nothing: where anything is not as
-- usual, nothing of it stays, and `write.lua` decides about the state that was there before.
if request.plain and version and count > 0 and SINGLE and fields[FORMED] == FORMAT and not fields[EXPIRES] and not fields[TTL]
  and (fields[OWNER] or nil) == request.guess and (not request.scope or fields[OWNER] == request.scope)
  and (not request.expected or request.expected == version) and fields[ACTIVE] < now then
  local check = redis.acl_check_cmd
  -- As `denied` in `prelude.lua` asks.
  if not check and request.probed or check and check('HSET', KEYS[1], '0', '0') and check('RPUSH', KEYS[1], '0', '0')
    and check('ZADD', KEYS[5], '0', '0') then
    local position, longer, larger, id = first + count, count + given, size, request.id
    -- A turn has two messages; a table that is made of what it holds need not grow.
    local places = given == 1 and { position, ARGV[2] } or { position, ARGV[2], position + 1, ARGV[3] }
    for index = 3, given do
      places[2 * index - 1], places[2 * index] = position + index - 1, ARGV[index + 1]
    end
    local added = redis.pcall('ZADD', KEYS[3], 'NX', unpack(places))
    if added == given then
      if call('ZCARD', KEYS[3]) == longer then
        call('ZADD', KEYS[5], score_of_now, id)
        if fields[OWNER] then call('ZADD', KEYS[8], score_of_now, id) end
        if call('RPUSH', KEYS[2], unpack(ARGV, given + 2)) == longer then
          for index = given + 2, 2 * given + 1 do larger = larger + #ARGV[index] end
          call('HSET', KEYS[1], 'v', version + 1, 'u', now, 'n', longer, 's', larger)
          return { 'added', version + 1, longer }
        end
        call('LTRIM', KEYS[2], 0, -given - 1)
      end
      -- By name, not by position: an id too many that stood there is for `write.lua` to see.
      call('ZREM', KEYS[3], unpack(ARGV, 2, given + 1))
    elseif type(added) == 'number' and added > 0 then
      call('ZREMRANGEBYSCORE', KEYS[3], position, '+inf')
    end
  end
end
