package problem

import (
	"encoding/json"
	"testing"
)

// A problem that is put together by hand must read as encoding/json writes it.
func FuzzBody(f *testing.F) {
	f.Add("/v1/activities/a", "Sold out", "", "0af7651916cd43dd8448eb211c80319c", int64(0))
	f.Add("/%22<&>\\", "\x00\u2028\xff\"", "hint", "", int64(1999))
	f.Fuzz(func(t *testing.T, instance, detail, hint, trace string, wait int64) {
		for _, list := range [][]Item{nil, {{Field: instance, Detail: detail}}} {
			p := body{
				Type: "urn:" + hint, Title: detail, Status: 409, Detail: detail, Instance: instance, Code: SoldOut,
				Retryable: wait != 0, RetryAfterMS: wait, Hint: hint, TraceID: trace, Problems: list,
			}
			want, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.append(nil); string(got) != string(want) {
				t.Errorf("%s, want %s", got, want)
			}
		}
	})
}
