package gateway_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/leadingpeers/seckill/internal/contract"
)

// FuzzRequest sends any method, path, query and body as an admin and as a
// service: whatever it is, the answer is never a fault of the gateway.
func FuzzRequest(f *testing.F) {
	c, err := contract.Load()
	if err != nil {
		f.Fatal(err)
	}
	r := newRig(f, nil)
	product, path := r.sell(f, offer{units: 10, perOrder: 2, perUser: 2})
	fill := strings.NewReplacer("{activity}", "a-"+strings.TrimPrefix(product, "p-"), "{product}", product,
		"{reservation}", strings.Repeat("a", 26), "{channel}", "warehouse", "{order}", "o-1", "{key}", "shop", "{asset}", "a.js")
	for name, item := range c.Doc.Paths.Map() {
		for method := range item.Operations() {
			f.Add(method, fill.Replace(name), "page_size=2&page_token=AA&state=paid&user_id=u-1&wait=1ms", `{"user_id":"u-1","quantity":1}`, "application/json")
		}
	}
	f.Add("GET", "/v1/orders", "page_token=_w", "", "")                      // half a character of UTF-8
	f.Add("GET", "/v1/orders/%ff", "", "", "")                               // the same in a path
	f.Add("GET", path+"/reservations", "user_id=u%00", "", "")               // NUL
	f.Add("POST", "/v1/activities", "", `{"name":"\ud800"}`, "text/plain")   // half of a pair
	f.Add("PATCH", path, "", strings.Repeat("[", 5000), "application/json")  // deep
	f.Add("POST", path+"/reservations", "a=%", `{"quantity":1e999}`, "a;b=") // nothing is right
	f.Fuzz(func(t *testing.T, method, path, query, body, kind string) {
		for _, key := range []string{adminKey, serviceKey} {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://gateway", strings.NewReader(body))
			if err != nil || strings.ContainsAny(kind, "\r\n\x00") {
				return // no client could send it
			}
			req.URL.Path, req.URL.RawQuery, req.RequestURI = path, query, path
			req.Header = http.Header{
				"Authorization": {"Bearer " + key}, "Content-Type": {kind}, "Idempotency-Key": {"fuzz-fuzz"}, "If-Match": {`"1"`},
			}
			w := httptest.NewRecorder()
			r.gateway.ServeHTTP(w, req)
			if w.Code >= 500 {
				t.Fatalf("%s %q ? %q %q %q: %d %s", method, path, query, kind, body, w.Code, w.Body)
			}
			if strings.Contains(w.Header().Get("Content-Type"), "json") && w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%s %q: not JSON: %s", method, path, w.Body)
			}
		}
	})
}
