-- preload: puts a product here from the ledger. The buyers' fields go into a
-- temporary hash, a few hundred a call; the last call adds the terms and makes
-- that hash the product's. So nobody ever sees half a product, and of two
-- loaders one wins and the other one changes nothing.
--
-- KEYS[1]  hash  <prefix>:{<product>}
-- KEYS[2]  hash  <prefix>:{<product>}:load:<nonce>  this loader's own
--
-- ARGV     'fill', ttl, then 1 to 500 times a field and its value
--            ttl     1 to 999999999 ms: when the loader dies, the temporary hash goes by itself
--            field   'u:' and the buyer, once per load
--            value   '<units held>;<ID>,<quantity>,<C|R>,<ms>;...'
-- or       'publish', fields, surplus, per_order, per_user, state, starts_at, ends_at, total, restocks, load
--            fields  how many fields the fill calls have put there, 0 or more
--            state   '1' on sale, '0' closed; the others are whole decimal numbers of at most 15 digits, 0 or more, times in ms
--            load    names this load, 1 to 32 of a-z and 0-9: whoever keeps the product right sees that it was loaded anew
--
-- Reply    'filled'  the temporary hash has the fields and lives for ttl again
--          'loaded'  the product is here now, by this call
--          'exists'  the product was here already; the temporary hash is gone, the product untouched
--          'lost'    the temporary hash has expired or lacks fields; it is gone, start again
--
-- Keeps    a product is whole or absent. It is never overwritten.

local product, temporary = KEYS[1], KEYS[2]
local verb = ARGV[1]

if verb == 'fill' then
  if #ARGV < 4 or #ARGV > 1002 or #ARGV % 2 ~= 0 or #ARGV[2] > 9 or not string.find(ARGV[2], '^[1-9]%d*$') then
    return redis.error_reply('ERR preload fill takes a ttl and 1 to 500 pairs')
  end
elseif verb == 'publish' then
  if #ARGV ~= 11 or #ARGV[11] > 32 or not string.find(ARGV[11], '^[a-z0-9]+$') then
    return redis.error_reply('ERR preload publish takes 9 whole numbers and the name of the load')
  end
  for i = 2, 10 do
    if #ARGV[i] > 15 or not string.find(ARGV[i], '^%d+$') then
      return redis.error_reply('ERR preload publish takes 9 whole numbers and the name of the load')
    end
  end
else
  return redis.error_reply('ERR preload knows fill and publish')
end

if redis.call('EXISTS', product) == 1 then
  redis.call('UNLINK', temporary)
  return 'exists'
end

if verb == 'fill' then
  redis.call('HSET', temporary, unpack(ARGV, 3))
  redis.call('PEXPIRE', temporary, ARGV[2])
  return 'filled'
end

-- A pause of the loader may have let the first fields expire: half a product would sell units twice.
if redis.call('HLEN', temporary) ~= tonumber(ARGV[2]) then
  redis.call('UNLINK', temporary)
  return 'lost'
end
redis.call('HSET', temporary, 'surplus', ARGV[3], 'per_order', ARGV[4], 'per_user', ARGV[5],
  'state', ARGV[6], 'starts_at', ARGV[7], 'ends_at', ARGV[8], 'total', ARGV[9], 'restocks', ARGV[10], 'load', ARGV[11])
redis.call('PERSIST', temporary)
redis.call('RENAMENX', temporary, product)
return 'loaded'
