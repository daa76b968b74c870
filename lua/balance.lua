-- balance: reads surplus and the pending units of one product at one instant.
--
-- KEYS[1]  hash  <prefix>:{<product>}
-- KEYS[2]  list  <prefix>:{<product>}:open  buyers with something pending
--
-- ARGV[1]  1 to 5000: entries of open to look at, at most. This bounds the work of the call.
--
-- Reply    'not_loaded'  no such product here
--          'busy'        open is longer than that
--          '<surplus>;<pending units>'
--          Nothing changes.
--
-- Counts   every pending record, because each of their buyers has an entry in open (see reap).

local product, open = KEYS[1], KEYS[2]
local limit = #ARGV == 1 and string.find(ARGV[1], '^[1-9]%d?%d?%d?$') and tonumber(ARGV[1])
if not limit or limit > 5000 then
  return redis.error_reply('ERR balance takes 1 to 5000 entries')
end
local surplus = redis.call('HGET', product, 'surplus')
if not surplus then
  return 'not_loaded'
end
if redis.call('LLEN', open) > limit then
  return 'busy'
end

local fields, seen = {}, {}
for _, buyer in ipairs(redis.call('LRANGE', open, 0, -1)) do
  if not seen[buyer] then
    seen[buyer] = true
    fields[#fields + 1] = 'u:' .. buyer
  end
end
local pending = 0
for first = 1, #fields, 500 do -- unpack has a limit
  for _, value in ipairs(redis.call('HMGET', product, unpack(fields, first, math.min(first + 499, #fields)))) do
    for quantity in string.gmatch(value or '', ';[^,;]+,(%d+),P,%d+') do
      pending = pending + tonumber(quantity)
    end
  end
end
return surplus .. ';' .. string.format('%.0f', pending)
