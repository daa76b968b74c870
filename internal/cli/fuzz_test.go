package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// FuzzReadSale reads what might be a sale.yaml. What is taken can be written
// and read again, and says the same.
func FuzzReadSale(f *testing.F) {
	f.Add([]byte("activity: {id: sale, name: Sale, starts_at: 2026-11-11T20:00:00+08:00, ends_at: 2026-11-11T21:00:00+08:00, pay_window: 15m}\n" +
		"products:\n  - {id: phone, name: Phone, price_cents: 499900, currency: CNY, total: 1000}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := readSale(bytes.NewReader(text))
		if err != nil {
			return
		}
		if s.Activity.ID == "" || len(s.Products) > maxSaleProducts {
			t.Fatalf("taken: %+v", s)
		}
		again, err := yaml.Marshal(s)
		if err != nil {
			t.Fatalf("%+v cannot be written: %v", s, err)
		}
		back, err := readSale(bytes.NewReader(again))
		if err != nil {
			t.Fatalf("%q, written as %q, cannot be read: %v", text, again, err)
		}
		sameTimes := s.Activity.StartsAt.Equal(back.Activity.StartsAt) && s.Activity.EndsAt.Equal(back.Activity.EndsAt)
		s.Activity.StartsAt, s.Activity.EndsAt, back.Activity.StartsAt, back.Activity.EndsAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
		same := sameTimes && s.Activity == back.Activity && len(s.Products) == len(back.Products)
		for i := 0; same && i < len(s.Products); i++ {
			same = s.Products[i] == back.Products[i]
		}
		if !same {
			t.Fatalf("%q: %+v, then %+v", text, s, back)
		}
	})
}

// FuzzShow shows what a gateway, or somebody in between, might answer.
func FuzzShow(f *testing.F) {
	f.Add([]byte(`{"orders":[{"id":"o-1","state":"paid"}]}`), "table")
	v := view{"orders", []string{"id", "state"}}
	f.Fuzz(func(t *testing.T, body []byte, format string) {
		var out strings.Builder
		if err := show(&out, format, v, body); err != nil {
			return
		}
		_ = show(&out, format, view{}, body)
	})
}
