-- Which commands are refused. Redis 7.0 is asked, and nothing is written; on 6.2 each is tried out on a key of the prefix
-- that nobody uses.
-- KEYS[1] that key, which is removed again; ARGV the names of the commands.
local forms = {
  HSET = { 'f', 'v' }, HDEL = { 'f' }, RPUSH = { 'v' }, LTRIM = { 0, -1 }, LSET = { 0, 'v' }, ZADD = { 0, 'm' }, ZREM = { 'm' },
  ZREMRANGEBYSCORE = { 0, 0 }, PEXPIREAT = { 1 }, GETRANGE = { 0, 0 }, HMGET = { 'f' }, HGET = { 'f' }, LRANGE = { 0, 0 },
  ZSCORE = { 'm' }, ZMSCORE = { 'm' }, RENAME = { KEYS[1] },
}
local check = redis.acl_check_cmd
if redis.replicate_commands then redis.replicate_commands() end

-- Each of the two below tells what is wrong: '' for a right that is missing, '?' for a command that the server does not know.

-- EVAL and EVALSHA cannot be tried out within a script; that this one runs says that one of them may be.
local function asked(name)
  local known, allowed
  if name == 'TIME' then
    known, allowed = pcall(check, name)
  elseif name == 'EVAL' or name == 'EVALSHA' then
    known, allowed = pcall(check, name, 'return 1', 1, KEYS[1])
  else
    known, allowed = pcall(check, name, KEYS[1], unpack(forms[name] or {}))
  end
  return not known and '?' or not allowed and '' or nil
end

local function tried(name)
  local answer
  if name == 'TIME' then
    answer = redis.pcall(name)
  else
    answer = redis.pcall(name, KEYS[1], unpack(forms[name] or {}))
  end
  redis.pcall('UNLINK', KEYS[1])
  if type(answer) ~= 'table' or not answer.err then return nil end
  local text = string.lower(answer.err)
  if string.find(text, 'unknown redis command', 1, true) then return '?' end
  local denied = string.find(text, "can't", 1, true) or string.find(text, 'no permission', 1, true)
    or string.find(text, 'noperm', 1, true)
  return denied and '' or nil
end

local refused = {}
for _, name in ipairs(ARGV) do
  local wrong = (check and asked or tried)(name)
  if wrong then refused[#refused + 1] = wrong .. name end
end
-- A key that cannot be removed at once goes by itself.
if not check then redis.pcall('PEXPIREAT', KEYS[1], 1) end
return refused
