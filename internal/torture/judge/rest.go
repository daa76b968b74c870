package judge

import (
	"context"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/leadingpeers/seckill/internal/torture/load"
)

// Case is what the judge is given at the end.
type Case struct {
	Promises map[string]load.Promise
	Totals   map[string]int64          // what operators have made of each product's total
	Excused  func(product string) bool // Redis may have lost something of it, or an operator has closed it
	Redis    *redis.Client
	Prefix   string
}

// State says how far the system has come to rest.
type State struct {
	Unknown      int      // promises that the ledger has not heard of
	Unended      int      // promises that are neither paid nor released
	Unpaid       int      // orders that wait for their payment
	Differs      int      // products in which Redis and the ledger differ
	Drifting     []string // products whose surplus and pending units are not what is available
	Paid         int      // promises that ended so
	Released     int
	Refused      map[string]int // promises that the ledger refused, by excuse
	RefusedUnits int64
	Orders       int
	Closed       int

	problems []problem
}

type problem struct {
	v    Verdict
	text string
}

// AtRest is whether there is nothing left to wait for.
func (s State) AtRest() bool { return s.Unknown+s.Unended+s.Unpaid+s.Differs == 0 }

func (s *State) problem(v Verdict, format string, args ...any) {
	s.problems = append(s.problems, problem{v, fmt.Sprintf(format, args...)})
}

// Settle notes what s holds against the system: it has had its time.
func (j *Judge) Settle(s State) {
	for _, p := range s.problems {
		j.find(p.v, "%s", p.text)
	}
}

// row is a reservation in the ledger with its order.
type row struct {
	product, user, state, order string
	quantity                    int64
}

// missingAtOnce bounds the IDs of one statement.
const missingAtOnce = 1000

// Missing returns those of the promised reservations that the ledger has not
// heard of. It is asked again and again while the system recovers, about fewer
// of them each time: reading everything instead took a quarter of two cores from
// what was waited for.
func (j *Judge) Missing(ctx context.Context, ids []string) (missing []string, err error) {
	for some := range slices.Chunk(ids, missingAtOnce) {
		args := make([]any, len(some))
		for i, id := range some {
			args[i] = rawID(id)
		}
		known := make(map[string]bool, len(some))
		query := "SELECT reservation_id FROM reservations WHERE reservation_id IN (?" + strings.Repeat(", ?", len(some)-1) + ")"
		if err := j.each(ctx, query, func(col []string) { known[col[0]] = true }, args...); err != nil {
			return nil, err
		}
		for _, id := range some {
			if !known[string(rawID(id))] {
				missing = append(missing, id)
			}
		}
	}
	return missing, nil
}

// Look compares the promises, the ledger, the orders and Redis.
func (j *Judge) Look(ctx context.Context, c Case) (State, error) {
	s := State{Refused: map[string]int{"redis_loss_or_operator": 0, "none": 0}}
	rows := map[string]row{}
	err := j.each(ctx, `SELECT LOWER(HEX(r.reservation_id)), r.product_id, r.user_id, r.quantity, r.state, COALESCE(o.state, '') FROM reservations r
		LEFT JOIN orders o ON o.reservation_id = r.reservation_id`, func(col []string) {
		rows[textID(col[0])] = row{product: col[1], user: col[2], quantity: number(col[3]), state: col[4], order: col[5]}
		if col[5] != "" {
			s.Orders++
		}
		if col[5] == "awaiting_payment" {
			s.Unpaid++
		}
	})
	if err != nil {
		return s, err
	}
	for id, p := range c.Promises {
		s.promise(c, p, rows[id])
	}
	return s, j.products(ctx, c, &s, rows)
}

// promise is S7 and S9 for one promise.
func (s *State) promise(c Case, p load.Promise, r row) {
	switch {
	case r.state == "":
		s.Unknown++
		s.problem(Verdict{Lost: 1}, "lost: %s of %s for %s, promised at %s, is not in the ledger", p.ID, p.Product, p.User, p.At.Format("15:04:05.000"))
		return
	case r.product != p.Product || r.user != p.User || r.quantity != p.Quantity:
		s.problem(Verdict{Lost: 1}, "promised %+v, but the ledger has %+v", p, r)
	}
	switch {
	case r.state == "deducted" && r.order == "paid":
		s.Paid++
	case r.state == "rolled_back" && (r.order == "cancelled" || r.order == ""):
		s.Released++
	case r.state == "refused" && r.order == "":
		s.Released++
		excuse := "none"
		if c.Excused(p.Product) {
			excuse = "redis_loss_or_operator"
		} else {
			s.problem(Verdict{Other: 1}, "%s of %s was accepted and then refused, though Redis had lost nothing of it", p.ID, p.Product)
		}
		s.Refused[excuse]++
		s.RefusedUnits += p.Quantity
	default:
		s.Unended++
		s.problem(Verdict{Lost: 1}, "without an end: %s: the ledger's row is %s, the order %q", p.ID, r.state, r.order)
	}
}

// products is S8: at rest Redis has what the ledger has, record by record.
func (j *Judge) products(ctx context.Context, c Case, s *State, rows map[string]row) error {
	return j.each(ctx, "SELECT product_id, total, available, state FROM stock", func(col []string) {
		id, total, available := col[0], number(col[1]), number(col[2])
		if want, ok := c.Totals[id]; ok && want != total {
			s.problem(Verdict{Leaked: max(want-total, total-want)}, "%s: the total is %d, and the operators have made it %d", id, total, want)
		}
		if col[3] == "closed" {
			s.Closed++
			s.problem(Verdict{Other: 1}, "%s was stopped by the audit", id)
		}
		surplus, pending, differences := compare(ctx, c, id, rows)
		if surplus+pending != available {
			s.Drifting = append(s.Drifting, id)
		}
		if surplus != available {
			differences = append(differences, fmt.Sprintf("surplus %d, available %d", surplus, available))
		}
		if len(differences) > 0 {
			s.Differs++
			leaked := max(1, available-surplus, surplus-available)
			s.problem(Verdict{Leaked: leaked}, "%s at rest: %d differences between Redis and the ledger, such as: %s", id, len(differences), differences[0])
		}
	})
}

// compare reads a product's hash and says where it is not what the ledger has.
func compare(ctx context.Context, c Case, id string, rows map[string]row) (surplus, pending int64, differences []string) {
	key := c.Prefix + ":{" + id + "}"
	fields, err := c.Redis.HGetAll(ctx, key).Result()
	if err != nil {
		return number(""), 0, []string{err.Error()}
	}
	open, err := c.Redis.LLen(ctx, key+":open").Result()
	if err != nil || open != 0 {
		differences = append(differences, fmt.Sprintf("open has %d entries (%v)", open, err))
	}
	seen := map[string]bool{}
	for name, value := range fields {
		user, ok := strings.CutPrefix(name, "u:")
		if !ok {
			continue
		}
		count, records, _ := strings.Cut(value, ";")
		held := int64(0)
		for record := range strings.SplitSeq(records, ";") {
			part := strings.Split(record, ",")
			if len(part) != 4 {
				differences = append(differences, fmt.Sprintf("record %q", record))
				continue
			}
			seen[part[0]] = true
			r := rows[part[0]]
			letter := map[string]string{"deducted": "C", "refused": "R", "rolled_back": "R"}[r.state]
			if letter != part[2] || letter == "C" && (r.user != user || r.product != id || number(part[1]) != r.quantity) {
				differences = append(differences, fmt.Sprintf("%s: Redis has %q, the ledger %+v", user, record, r))
			}
			if part[2] == "P" {
				pending += number(part[1])
			}
			if part[2] != "R" {
				held += number(part[1])
			}
		}
		if held != number(count) {
			differences = append(differences, fmt.Sprintf("%s holds %d by the records and %s by the count", user, held, count))
		}
	}
	for rid, r := range rows {
		if r.product == id && r.state == "deducted" && !seen[rid] {
			differences = append(differences, fmt.Sprintf("%s is deducted and not in Redis", rid))
		}
	}
	return number(fields["surplus"]), pending, differences
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return -1 << 40 // no count: a difference to everything
	}
	return n
}

// base32ID is how buyers know a reservation's ID, but for the case.
func base32ID() *base32.Encoding { return base32.StdEncoding.WithPadding(base32.NoPadding) }

// rawID is a reservation's ID as the ledger keeps it.
func rawID(id string) []byte {
	raw, err := base32ID().DecodeString(strings.ToUpper(id))
	if err != nil {
		return []byte(id) // no ID at all: nothing has it
	}
	return raw
}

// textID is a reservation's ID as buyers know it.
func textID(hexID string) string {
	raw, err := hex.DecodeString(hexID)
	if err != nil {
		return hexID
	}
	return strings.ToLower(base32ID().EncodeToString(raw))
}
