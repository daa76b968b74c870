-- apply: makes this server agree with the ledger about reservations of one
-- product. Confirmation and rollback are this same script. The ledger's word
-- counts: nothing is checked against the window, the limits or the surplus.
--
-- KEYS[1]  hash  <prefix>:{<product>}
--
-- ARGV     n requests (1 to 500) as four arrays, one after the other:
--          n fields      'u:' and the buyer
--          n IDs         26 characters of a-z and 2-7
--          n quantities  1 to 999999999 in decimal, as the ledger has them
--          n states      'C' deducted in the ledger, 'R' refused or rolled back there
--
-- Reply    one letter per request in their order:
--          'c'  changed: P became C or R, or C became R
--          's'  the same already, or R, which is final; nothing changed
--          'a'  adopted: C on an unknown ID takes the units again, surplus may go below 0
--          't'  tombstone: R on an unknown ID; surplus and count stay, the ID can never reserve
--          'n'  no such product here; nothing changed
--          'x'  the quantity or the state is none; nothing changed
--
-- Keeps    surplus + pending + deducted = total for each total the ledger holds;
--          units are given back once (R is final) and a count never falls below 0
--          (only the units of a P or C record, which are in it, are taken out).
--          The order of calls does not matter, nor how often they come.

local product = KEYS[1]
local n = #ARGV / 4
if n < 1 or n > 500 or n % 1 ~= 0 then
  return redis.error_reply('ERR apply takes 1 to 500 requests of 4 arguments each')
end

local values = redis.call('HMGET', product, 'surplus', unpack(ARGV, 1, n))
local surplus = tonumber(values[1])
if not surplus then
  return string.rep('n', n)
end
local time = redis.call('TIME')
local now_ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))

local find, sub, format = string.find, string.sub, string.format
local outcomes = {}
local current = {} -- field -> its value after the requests so far
local writes = {}  -- field, value...: of a field that is here twice, the later value stays

for i = 1, n do
  local field, id, digits, state = ARGV[i], ARGV[n + i], ARGV[n + n + i], ARGV[n + n + n + i]
  local quantity = #digits <= 9 and find(digits, '^[1-9]%d*$') and tonumber(digits)
  local value = current[field] or values[1 + i] or '0'
  local _, comma = find(value, ';' .. id .. ',', 1, true) -- a whole ID, see reserve
  local outcome, moved, head, tail -- moved: units from surplus to the buyer

  if not quantity or (state ~= 'C' and state ~= 'R') then
    outcome = 'x'
  elseif comma then
    local stop = find(value, ',', comma + 1, true)
    local recorded, was = sub(value, comma + 1, stop - 1), sub(value, stop + 1, stop + 1)
    if was == 'R' or was == state then
      outcome = 's'
    else
      outcome = 'c'
      if state == 'C' then
        -- The quantities differ when this server lost the ID and then reserved
        -- it again, for more or for less: the ledger's row came first.
        moved = quantity - tonumber(recorded)
      else
        moved = -tonumber(recorded)
        digits = recorded
      end
      head, tail = sub(value, 1, comma), digits .. ',' .. state .. sub(value, stop + 2)
    end
  else
    outcome = state == 'C' and 'a' or 't'
    moved = state == 'C' and quantity or 0
    head, tail = value .. ';' .. id .. ',', digits .. ',' .. state .. ',' .. now_ms
  end

  outcomes[i] = outcome
  if moved then
    if moved ~= 0 then
      local stop = find(head, ';', 1, true)
      head = format('%d', tonumber(sub(head, 1, stop - 1)) + moved) .. sub(head, stop)
      surplus = surplus - moved
    end
    current[field] = head .. tail
    writes[#writes + 1] = field
    writes[#writes + 1] = current[field]
  end
end

if #writes > 0 then
  redis.call('HSET', product, 'surplus', format('%d', surplus), unpack(writes))
end
return table.concat(outcomes)
