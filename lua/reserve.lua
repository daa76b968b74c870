-- reserve: takes units of one product for a batch of buyers, in one atomic step.
--
-- KEYS[1]  hash  <prefix>:{<product>}       the product's terms, its surplus, one field per buyer
-- KEYS[2]  list  <prefix>:{<product>}:open  buyers with something pending, oldest first
--
-- ARGV     n requests (1 to 500) as three arrays, one after the other:
--          n fields      'u:' and the buyer: 3 to 66 printable ASCII bytes
--          n IDs         26 characters of a-z and 2-7
--          n quantities  1 to 999999999 in decimal; anything else is refused below
--          The caller has checked fields and IDs: an ID holds neither ';' nor ','.
--
-- Reply    '<now ms>;<row>;<row>...', one row per request in their order. A row is
--          '+'                        reserved: surplus and the buyer's count moved, record added, buyer in open
--          '<quantity>,<P|C|R>,<ms>'  this ID is known: the answer on record; nothing changed
--          'id_reused'                this ID is known with another quantity; nothing changed
--          'not_loaded'               no such product here, or its hash is not whole; nothing changed
--          'not_on_sale'              closed, or outside the window by this server's clock; nothing changed
--          'over_order_limit'         not a whole number of 1 to per_order; nothing changed
--          'sold_out'                 surplus is smaller than the quantity; nothing changed
--          'over_user_limit'          the buyer would hold more than per_user; nothing changed
--          'too_many_attempts'        the buyer's field is full; nothing changed
--          These are checked in that order. The answer on record comes first: a
--          retry must find its own hold even when that took the last unit.
--
-- Keeps    surplus + pending + deducted = total, surplus >= 0 through this script,
--          and the count in a buyer's field = the sum of their P and C records.
--
-- A buyer's field is '<units held>;<ID>,<quantity>,<P|C|R>,<ms>;<ID>,...'.
-- Strings go into redis.call, one HMGET reads all and one HSET writes all: that
-- is most of what makes a batch cheap.

local product, open = KEYS[1], KEYS[2]
local n = #ARGV / 3
if n < 1 or n > 500 or n % 1 ~= 0 then
  return redis.error_reply('ERR reserve takes 1 to 500 requests of 3 arguments each')
end

local FULL = 1440 -- bytes: 32 records of a one-digit quantity
local TERMS = 6   -- values of HMGET before the buyers' fields
local values = redis.call('HMGET', product,
  'surplus', 'per_order', 'per_user', 'state', 'starts_at', 'ends_at', unpack(ARGV, 1, n))
local surplus, per_order, per_user = tonumber(values[1]), tonumber(values[2]), tonumber(values[3])
local starts_at, ends_at = tonumber(values[5]), tonumber(values[6])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_ms = string.format('%d', now) -- '..' would write a large number with an exponent
-- A text of 'nan' is a number to some Luas: one that differs from itself and is never too small.
if not (surplus and per_order and per_user and starts_at and ends_at) or surplus ~= surplus then
  return now_ms .. string.rep(';not_loaded', n)
end
local on_sale = values[4] == '1' and now >= starts_at and now < ends_at

local find, sub, format = string.find, string.sub, string.format
local pending = ',P,' .. now_ms
local rows = {}     -- the reply
local current = {}  -- field -> its value after the requests so far: a buyer may be in the batch twice
local writes = {}   -- field, value, field, value...: of a field that is here twice, the later value stays
local buyers = {}   -- to push to open
local taken = 0     -- how many

for i = 1, n do
  local field, id, digits = ARGV[i], ARGV[n + i], ARGV[n + n + i]
  local value = current[field] or values[TERMS + i]
  -- With both separators and plain: an ID matches a whole one, and none of its bytes is a pattern.
  local _, comma
  if value then
    _, comma = find(value, ';' .. id .. ',', 1, true)
  end

  if comma then
    local stop = find(value, ';', comma, true)
    local answer = sub(value, comma + 1, stop and stop - 1)
    local recorded = sub(answer, 1, find(answer, ',', 1, true) - 1)
    rows[i] = recorded == digits and answer or 'id_reused'
  elseif not on_sale then
    rows[i] = 'not_on_sale'
  else
    local quantity = digits == '1' and 1
      or #digits <= 9 and find(digits, '^[1-9]%d*$') and tonumber(digits)
    local units, records = 0, nil
    if value then
      local stop = find(value, ';', 1, true)
      units, records = tonumber(sub(value, 1, stop - 1)), sub(value, stop)
    end

    if not quantity or quantity > per_order then
      rows[i] = 'over_order_limit'
    elseif surplus < quantity then
      rows[i] = 'sold_out'
    elseif units + quantity > per_user then
      rows[i] = 'over_user_limit'
    elseif records and #records >= FULL then
      rows[i] = 'too_many_attempts'
    else
      surplus = surplus - quantity
      if records then
        value = format('%d', units + quantity) .. records .. ';' .. id .. ',' .. digits .. pending
      else -- nearly everybody: the fewer texts, the cheaper
        value = digits .. ';' .. id .. ',' .. digits .. pending
      end
      current[field] = value
      taken = taken + 1
      writes[taken + taken - 1], writes[taken + taken], buyers[taken] = field, value, sub(field, 3)
      rows[i] = '+'
    end
  end
end

if taken > 0 then
  -- open first: should this server refuse the HSET, an entry without a pending
  -- record is dropped by reap, while a record without an entry would stay for ever.
  redis.call('RPUSH', open, unpack(buyers))
  redis.call('HSET', product, 'surplus', format('%d', surplus), unpack(writes))
end
return now_ms .. ';' .. table.concat(rows, ';')
