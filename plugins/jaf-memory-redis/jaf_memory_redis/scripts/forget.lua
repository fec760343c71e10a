-- A string of jaf-py's goes if it still is what was moved. KEYS[1] its key; ARGV[1] what it held.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end
return 0
