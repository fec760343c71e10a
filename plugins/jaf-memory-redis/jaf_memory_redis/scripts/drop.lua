-- On a Cluster: an index entry goes unless somebody has renewed it since. KEYS[1] index; ARGV entry, highest score,
-- and the age in microseconds below which it stays, because its conversation may be about to be written.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) > tonumber(ARGV[2]) then return 0 end
local clock = redis.call('TIME')
local age = tonumber(clock[1]) * 1000000 + tonumber(clock[2]) - tonumber(score)
if age < tonumber(ARGV[3]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
