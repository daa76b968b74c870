-- configure: sets the terms under which a loaded product is sold, all at once.
--
-- KEYS[1]  hash  <prefix>:{<product>}
--
-- ARGV     per_order, per_user, state, starts_at, ends_at
--          whole decimal numbers, 0 or more; state '1' on sale or '0' closed; times in ms
--
-- Reply    'ok'          the terms are set
--          'not_loaded'  no such product here; nothing changed: terms alone are not a product
--
-- Keeps    surplus and the buyers' fields are not touched: no unit moves.

if #ARGV ~= 5 then
  return redis.error_reply('ERR configure takes 5 whole numbers')
end
for i = 1, 5 do
  if not string.find(ARGV[i], '^%d+$') then
    return redis.error_reply('ERR configure takes 5 whole numbers')
  end
end
if redis.call('HEXISTS', KEYS[1], 'surplus') == 0 then
  return 'not_loaded'
end
redis.call('HSET', KEYS[1], 'per_order', ARGV[1], 'per_user', ARGV[2],
  'state', ARGV[3], 'starts_at', ARGV[4], 'ends_at', ARGV[5])
return 'ok'
