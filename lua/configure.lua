-- configure: sets the terms under which a loaded product is sold, all at once,
-- and follows a change of its total.
--
-- KEYS[1]  hash  <prefix>:{<product>}
--
-- ARGV     per_order, per_user, state, starts_at, ends_at, total, restocks
--          whole decimal numbers of at most 15 digits, which Lua has exactly, 0 or more; state '1' on sale or '0' closed;
--          times in ms; restocks counts the changes of total
--
-- Reply    'ok'          the terms are set
--          'not_loaded'  no such product here; nothing changed: terms alone are not a product
--
-- Keeps    the buyers' fields are not touched. surplus moves only with total, by the same units:
--          total = surplus + pending + deducted. A total is taken once, and never an older one,
--          so calls may come twice and in any order.

if #ARGV ~= 7 then
  return redis.error_reply('ERR configure takes 7 whole numbers')
end
for i = 1, 7 do
  if #ARGV[i] > 15 or not string.find(ARGV[i], '^%d+$') then
    return redis.error_reply('ERR configure takes 7 whole numbers')
  end
end
local had = redis.call('HMGET', KEYS[1], 'surplus', 'total', 'restocks')
if not had[1] then
  return 'not_loaded'
end
if had[2] and tonumber(ARGV[7]) > tonumber(had[3]) then
  redis.call('HINCRBY', KEYS[1], 'surplus', string.format('%.0f', tonumber(ARGV[6]) - tonumber(had[2])))
  redis.call('HSET', KEYS[1], 'total', ARGV[6], 'restocks', ARGV[7])
end
redis.call('HSET', KEYS[1], 'per_order', ARGV[1], 'per_user', ARGV[2],
  'state', ARGV[3], 'starts_at', ARGV[4], 'ends_at', ARGV[5])
return 'ok'
