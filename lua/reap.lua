-- reap: finds reservations of one product that have been pending for too long.
-- It gives nothing back: the caller announces them again, and the ledger decides.
--
-- KEYS[1]  hash  <prefix>:{<product>}
-- KEYS[2]  list  <prefix>:{<product>}:open  buyers with something pending, oldest first
--
-- ARGV[1]  age in ms, 0 or more, from which a pending reservation is returned
-- ARGV[2]  1 to 500: entries of open to look at, from its head. This bounds the work of a call.
--
-- Reply    'not_loaded' when there is no such product here; nothing changed. Else
--          {buyer, ID, quantity, ms, buyer, ID, ...}: four elements a reservation.
--          Changed is only open: of the entries looked at, those of buyers with
--          nothing pending and second ones of a buyer are dropped, those of
--          returned buyers go to the tail, the others stay at the head.
--
-- Keeps    every buyer with a pending record has an entry in open; no unit moves.

local product, open = KEYS[1], KEYS[2]
if #ARGV ~= 2 or not string.find(ARGV[1], '^%d+$') or not string.find(ARGV[2], '^[1-9]%d?%d?$')
  or tonumber(ARGV[2]) > 500 then
  return redis.error_reply('ERR reap takes an age in ms and 1 to 500 entries')
end
if redis.call('HEXISTS', product, 'surplus') == 0 then
  return 'not_loaded'
end

local entries = redis.call('LRANGE', open, 0, tonumber(ARGV[2]) - 1)
if #entries == 0 then
  return {}
end
local buyers, fields, seen = {}, {}, {}
for _, buyer in ipairs(entries) do
  if not seen[buyer] then
    seen[buyer] = true
    buyers[#buyers + 1] = buyer
    fields[#fields + 1] = 'u:' .. buyer
  end
end
local values = redis.call('HMGET', product, unpack(fields))

local time = redis.call('TIME')
local latest = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1])
local found, stay, rotate = {}, {}, {}
for i, buyer in ipairs(buyers) do
  local pending, returned = false, false
  for id, quantity, ms in string.gmatch(values[i] or '', ';([^,;]+),(%d+),P,(%d+)') do
    pending = true
    if tonumber(ms) <= latest then
      returned = true
      found[#found + 1] = buyer
      found[#found + 1] = id
      found[#found + 1] = quantity
      found[#found + 1] = ms
    end
  end
  if returned then
    rotate[#rotate + 1] = buyer
  elseif pending then
    table.insert(stay, 1, buyer) -- LPUSH below turns them round again
  end
end

if #stay < #entries then
  -- The first write may be refused for want of memory, later ones of a script
  -- are not: so the entries are pushed to the tail before the head is cut off.
  if #rotate > 0 then
    redis.call('RPUSH', open, unpack(rotate))
  end
  redis.call('LTRIM', open, #entries, -1)
  if #stay > 0 then
    redis.call('LPUSH', open, unpack(stay))
  end
end
return found
