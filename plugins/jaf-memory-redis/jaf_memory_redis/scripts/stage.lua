-- A part of a large change is laid aside, in steps that keep nobody waiting: messages of the conversation (`start` to `stop`,
-- by place), or those that come with the request (from `position` on). `take_staged` in `prelude.lua` puts it in place.
-- KEYS[4..5] bodies and ids that are laid aside; they go by themselves where nobody comes for them.
local rare = rarely()
if (before and rare.stamp(before)) ~= request.expected then return { 'other' } end
local refused = denied('RPUSH', 'ZADD', 'PEXPIREAT')
if refused then return refused end
if call('LLEN', KEYS[4]) ~= request.staged then return { 'other' } end
local size = 0
if request.stop > request.start then
  size = copy_messages(KEYS[2], KEYS[3], request.start, request.stop, KEYS[4], KEYS[5])
  if not size then return rare.damaged(before) end
end
KEYS[2], KEYS[3] = KEYS[4], KEYS[5]
if given > 0 then
  place_ids(ARGV, 2, given, request.position)
  size = size + add_bodies(ARGV, 2, given)
end
local at = math.ceil(clock_number / 1000) + AFTERLIFE
call('PEXPIREAT', KEYS[2], at)
call('PEXPIREAT', KEYS[3], at)
return { 'ok', size }
