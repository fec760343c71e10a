-- On a Cluster: index entries go that were seen to point nowhere, unless a writer has announced their conversation.
-- KEYS index by activity, by creation, and the mark; ARGV id, its entry by creation ('' for none), and the highest score by
-- activity that may go ('' for none): a later one was renewed since. Answers 1 if an entry by creation went, 2 if it was the
-- last.
if redis.replicate_commands then redis.replicate_commands() end
local clock = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local dropped = 0
if ARGV[2] ~= '' then dropped = redis.call('ZREM', KEYS[2], ARGV[2]) end
if dropped == 1 and redis.call('EXISTS', KEYS[2]) == 0 then dropped = 2 end
if ARGV[3] ~= '' then
  local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
  if score and tonumber(score) <= tonumber(ARGV[3]) then redis.call('ZREM', KEYS[1], ARGV[1]) end
end
return dropped
