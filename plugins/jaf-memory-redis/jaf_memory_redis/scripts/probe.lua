-- Which commands are refused, tried out on a key of the prefix that nobody uses; for Redis 6.2, which cannot be asked, and
-- for saying what is missing where a server only says that something is.
-- KEYS[1] a key that is made and removed; ARGV the names of the commands.
local forms = {
  HSET = { 'f', 'v' }, HDEL = { 'f' }, RPUSH = { 'v' }, LTRIM = { 0, -1 }, LSET = { 0, 'v' }, ZADD = { 0, 'm' }, ZREM = { 'm' },
  ZREMRANGEBYSCORE = { 0, 0 }, PEXPIREAT = { 1 }, GETRANGE = { 0, 0 }, HMGET = { 'f' }, HGET = { 'f' }, LRANGE = { 0, 0 },
  ZSCORE = { 'm' }, ZMSCORE = { 'm' },
}
if redis.replicate_commands then redis.replicate_commands() end
local refused = {}
for _, name in ipairs(ARGV) do
  local answer
  if name == 'RENAME' then
    answer = redis.pcall(name, KEYS[1], KEYS[1])
  elseif name == 'TIME' then
    answer = redis.pcall(name)
  else
    answer = redis.pcall(name, KEYS[1], unpack(forms[name] or {}))
  end
  if type(answer) == 'table' and answer.err then
    local text = string.lower(answer.err)
    if string.find(text, "can't", 1, true) or string.find(text, 'no permission', 1, true)
      or string.find(text, 'noperm', 1, true) then
      refused[#refused + 1] = name
    end
  end
  redis.pcall('UNLINK', KEYS[1])
end
-- A key that cannot be removed at once goes by itself.
redis.pcall('PEXPIREAT', KEYS[1], 1)
return refused
