-- On a Cluster: the index entries of a conversation that is about to be made, or to get its owner.
-- KEYS index by activity, by creation, and the mark; ARGV id, its score, its entry by creation, the writer's token, the
-- milliseconds for which the writer may take, and what says among all that its owner has any ('' for none).
-- Answers whether that stood already, and whether the index by creation did.
if redis.replicate_commands then redis.replicate_commands() end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
-- While a mark stands, nobody takes the entries for stale ones.
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[5]), ARGV[4])
redis.call('PEXPIRE', KEYS[3], ARGV[5])
redis.call('ZADD', KEYS[1], 'NX', ARGV[2], ARGV[1])
local stood = redis.call('EXISTS', KEYS[2])
redis.call('ZADD', KEYS[2], 0, ARGV[3])
return { ARGV[6] ~= '' and 1 - redis.call('ZADD', KEYS[2], 0, ARGV[6]) or 0, stood }
