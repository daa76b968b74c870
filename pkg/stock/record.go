package stock

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The letters of a record's state in Redis.
const (
	letterPending    = "P"
	letterDeducted   = "C"
	letterRolledBack = "R"
)

// letter is how Redis has a state: what the ledger refused is rolled back there.
func (s State) letter() (string, error) {
	switch s {
	case Pending:
		return letterPending, nil
	case Deducted:
		return letterDeducted, nil
	case Refused, RolledBack:
		return letterRolledBack, nil
	}
	return "", fmt.Errorf("state %.20q is none", string(s))
}

// stateOf is the state of a letter, empty when there is none.
func stateOf(letter string) State {
	switch letter {
	case letterPending:
		return Pending
	case letterDeducted:
		return Deducted
	case letterRolledBack:
		return RolledBack
	}
	return ""
}

// readAnswer sets quantity, state and time of r from "<quantity>,<letter>,<ms>".
func readAnswer(r *Reservation, answer string) error {
	quantity, rest, _ := strings.Cut(answer, ",")
	letter, ms, _ := strings.Cut(rest, ",")
	q, errQuantity := strconv.ParseInt(quantity, 10, 64)
	at, errTime := strconv.ParseInt(ms, 10, 64)
	state := stateOf(letter)
	if errQuantity != nil || errTime != nil || state == "" {
		return fmt.Errorf("record %.60q: want quantity,state,ms", answer)
	}
	r.Quantity, r.State, r.At = q, state, time.UnixMilli(at).UTC()
	return nil
}

// readField takes a buyer's field apart: "<units held>;<ID>,<answer>;...".
func readField(productID, userID, value string) (units int64, rs []Reservation, err error) {
	count, records, _ := strings.Cut(value, ";")
	if units, err = strconv.ParseInt(count, 10, 64); err != nil {
		return 0, nil, fmt.Errorf("field of %s: count %.40q: want a number", userID, count)
	}
	for record := range strings.SplitSeq(records, ";") {
		r := Reservation{ProductID: productID, UserID: userID}
		var answer string
		r.ID, answer, _ = strings.Cut(record, ",")
		if err := readAnswer(&r, answer); err != nil {
			return 0, nil, fmt.Errorf("field of %s: %w", userID, err)
		}
		rs = append(rs, r)
	}
	return units, rs, nil
}

// field gathers the ledger's rows of one buyer into the value of their field.
type field struct {
	userID  string
	units   int64
	records []byte
}

// add appends one row of this buyer.
func (f *field) add(r Reservation) error {
	letter, err := r.State.letter()
	if err != nil || r.State == Pending {
		return fmt.Errorf("reservation %s: state %.20q is none of the ledger's", r.ID, string(r.State))
	}
	if r.State == Deducted {
		f.units += r.Quantity
	}
	f.records = fmt.Appendf(f.records, ";%s,%d,%s,%d", r.ID, r.Quantity, letter, r.At.UnixMilli())
	return nil
}

// value is the whole field as Redis has it.
func (f *field) value() string { return strconv.FormatInt(f.units, 10) + string(f.records) }
