package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/cli"
)

// run runs a command line against a gateway.
func run(t *testing.T, server, input string, args ...string) (out string, status int, err error) {
	t.Helper()
	root := &cobra.Command{Use: "seckill", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(cli.Commands(func(name string) string {
		return map[string]string{"SECKILL_SERVER": server, "SECKILL_KEY": "sk_ops_secret"}[name]
	}, time.Now)...)
	var buf bytes.Buffer
	root.SetArgs(args)
	root.SetOut(&buf)
	root.SetIn(strings.NewReader(input))
	err = root.ExecuteContext(context.Background())
	if s, ok := err.(interface{ ExitStatus() int }); ok {
		status = s.ExitStatus()
	} else if err != nil {
		status = cli.ExitFailed
	}
	return buf.String(), status, err
}

// answer is what the gateway below says to a request.
type answer struct {
	status int
	body   string
}

// serve starts a gateway that knows these answers, by method and path, and
// keeps what it was sent.
func serve(t *testing.T, answers map[string]answer) (url string, sent *[]string) {
	t.Helper()
	sent = &[]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		call := r.Method + " " + r.URL.RequestURI()
		*sent = append(*sent, strings.TrimSpace(call+" "+string(body)))
		a, ok := answers[call]
		if !ok {
			a = answer{404, `{"type":"urn:x","title":"t","status":404,"detail":"No such activity is on sale.","instance":"/","code":"activity_not_found","retryable":false,"trace_id":"0"}`}
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("ETag", `"7"`)
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}))
	t.Cleanup(server.Close)
	return server.URL, sent
}

const (
	phone    = `{"id":"phone","activity_id":"sale","name":"Phone","price_cents":100,"currency":"CNY","total":10,"available":4,"per_order":1,"per_user":1,"sold_out":false,"version":7,"created_at":"2026-11-11T12:00:00.000Z","updated_at":"2026-11-11T12:00:00.000Z"}`
	activity = `{"id":"sale","name":"Sale","state":"draft","starts_at":"2026-11-11T12:00:00.000Z","ends_at":"2026-11-11T13:00:00.000Z","pay_window_seconds":900,"version":7,"created_at":"2026-11-11T12:00:00.000Z","updated_at":"2026-11-11T12:00:00.000Z"}`
	notYet   = `{"type":"urn:x","title":"t","status":409,"detail":"2 things are in the way.","instance":"/","code":"not_publishable","retryable":false,"hint":"Send preload.","trace_id":"0","problems":[{"field":"ends_at","detail":"is in the past"},{"field":"products/phone","detail":"is not preloaded"}]}`
)

// stream is what WatchReservation answers, shortened.
const stream = "id: 1\nevent: state\ndata: {\"state\":\"queued\"}\n\n" + ": alive\n" +
	"id: 1\nevent: state\ndata: {\"state\":\"awaiting_payment\",\"order_id\":\"o-1\"}\n\n" +
	"id: 1\nevent: state\ndata: {\"state\":\"released\",\"order_id\":\"o-1\",\"reason\":\"cancelled\"}\n\n"

func TestHelpNamesTheExitStatuses(t *testing.T) {
	for _, args := range [][]string{{"order", "--help"}, {"order", "list", "--help"}, {"activity", "apply", "--help"}} {
		out, _, err := run(t, "http://127.0.0.1:1", "", args...)
		if err != nil || strings.Count(out, "Exit status:") != 1 || !strings.Contains(out, "4  no answer in time") {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

func TestCompletion(t *testing.T) {
	for args, want := range map[string]string{"__complete order li": "list\t", "__complete order list -o ": "csv\n", "completion bash": "complete"} {
		out, _, err := run(t, "http://127.0.0.1:1", "", strings.Split(args, " ")...)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, want %q in\n%.300s", args, err, want, out)
		}
	}
}

func TestFormats(t *testing.T) {
	url, _ := serve(t, map[string]answer{
		"GET /v1/activities/sale/products":                                       {200, `{"products":[` + phone + `],"next_page_token":"p2"}`},
		"GET /v1/activities/sale/products?page_token=p2":                         {200, `{"products":[` + strings.Replace(phone, `"phone"`, `"case, red"`, 1) + `]}`},
		"GET /v1/activities/sale":                                                {200, activity},
		"GET /v1/activities/sale/products/phone/stock":                           {200, `{"product_id":"phone","total":10,"available":4,"deducted":6,"surplus":null,"state":"open","loaded":false}`},
		"POST /v1/activities/sale/products/phone/preload":                        {200, `{"products":[{"product_id":"phone","loaded":true}]}`},
		"GET /v1/activities/sale/products/phone/reservations/r/events?user_id=u": {200, stream},
	})
	for _, tt := range []struct {
		args []string
		want string
		why  string
	}{
		{
			[]string{"product", "list", "sale"},
			"ID         NAME   PRICE_CENTS  CURRENCY  TOTAL  AVAILABLE  SOLD_OUT  PER_ORDER  PER_USER  CHANNEL\n" +
				"phone      Phone  100          CNY       10     4          false     1          1         \n" +
				"case, red  Phone  100          CNY       10     4          false     1          1         \n",
			"both pages, in columns",
		},
		{
			[]string{"product", "list", "sale", "-o", "csv"},
			"id,name,price_cents,currency,total,available,sold_out,per_order,per_user,channel\nphone,Phone,100,CNY,10,4,false,1,1,\n\"case, red\",Phone,100,CNY,10,4,false,1,1,\n",
			"a comma in a value is quoted",
		},
		{[]string{"cache", "preload", "sale", "phone", "-o", "yaml"}, "products:\n  - product_id: phone\n    loaded: true\n", "a list in YAML, in the order of the API"},
		{[]string{"stock", "get", "sale", "phone"}, "product_id  phone\nstate       open\ntotal       10\navailable   4\ndeducted    6\nsurplus     \nloaded      false\n", "what is not known stays empty"},
		{[]string{"activity", "get", "sale", "--field", "state"}, "draft\n", "one member, for a script"},
		{[]string{"product", "list", "sale", "--field", "id"}, "phone\ncase, red\n", "one member of each row"},
		{[]string{"stock", "get", "sale", "phone", "--field", "surplus"}, "\n", "a member without a value"},
		{[]string{"reservation", "watch", "sale", "phone", "r", "--user", "u"}, "queued\nawaiting_payment  o-1\nreleased          cancelled\n", "a state a line"},
		{[]string{"reservation", "watch", "sale", "phone", "r", "--user", "u", "--field", "state"}, "queued\nawaiting_payment\nreleased\n", "only the states"},
		{[]string{"reservation", "watch", "sale", "phone", "r", "--user", "u", "-o", "json"}, strings.NewReplacer("data: ", "", "id: 1\nevent: state\n", "", ": alive\n", "", "\n\n", "\n").Replace(stream), "an object a line"},
		{[]string{"stock", "get", "sale", "phone", "-o", "json"}, "{\n  \"product_id\": \"phone\",\n  \"total\": 10,\n  \"available\": 4,\n  \"deducted\": 6,\n  \"surplus\": null,\n  \"state\": \"open\",\n  \"loaded\": false\n}\n", "as the API says it"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			out, _, err := run(t, url, "", tt.args...)
			if err != nil || out != tt.want {
				t.Errorf("got %q, %v\nwant %q: %s", out, err, tt.want, tt.why)
			}
		})
	}
}

func TestErrorsSayWhatFailedWhyAndWhatToDo(t *testing.T) {
	url, _ := serve(t, map[string]answer{
		"POST /v1/activities/sale/publish": {409, notYet}, "GET /v1/activities/sale": {200, activity},
		"GET /v1/keys": {403, `{"type":"urn:x","title":"t","status":403,"detail":"d","instance":"/","code":"forbidden","retryable":false,"trace_id":"0"}`},
	})
	for _, tt := range []struct {
		name   string
		server string
		args   []string
		status int
		want   string
	}{
		{"refused", url, []string{"activity", "publish", "sale"}, cli.ExitFailed, "cannot publish activity \"sale\"\n  cause: 2 things are in the way. (not_publishable)\n         ends_at is in the past\n         products/phone is not preloaded\n  fix:   add what is missing; --preload loads the products"},
		{"nobody there", "http://127.0.0.1:1", []string{"activity", "get", "sale"}, cli.ExitUnavailable, "fix:   check that the gateway runs"},
		{"unknown command", url, []string{"activity", "lst"}, cli.ExitUsage, `cause: unknown command "lst"`},
		{"argument missing", url, []string{"stock", "get", "sale"}, cli.ExitUsage, "want 2 arguments (ACTIVITY PRODUCT), got 1"},
		{"flag missing", url, []string{"key", "create"}, cli.ExitUsage, `required flag(s) "role" not set`},
		{"unknown flag", url, []string{"key", "list", "--x"}, cli.ExitUsage, "unknown flag: --x"},
		{"wrong format", url, []string{"key", "list", "-o", "xml"}, cli.ExitUsage, `--output is "xml"`},
		{"a member that is not there", url, []string{"activity", "get", "sale", "--field", "stat"}, cli.ExitFailed, "the answer has only id, name, state,"},
		{"not for this role", url, []string{"key", "list"}, cli.ExitFailed, "fix:   set SECKILL_KEY to a key with another role"},
		{"wrong time", url, []string{"activity", "update", "sale", "--starts", "soon"}, cli.ExitUsage, `--starts is "soon"`},
		{"no scheme", "localhost:8080", []string{"key", "list"}, cli.ExitUsage, `server "localhost:8080"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, status, err := run(t, tt.server, "", tt.args...)
			if err == nil || status != tt.status || !strings.Contains(err.Error(), tt.want) || out != "" {
				t.Errorf("status %d, out %q, error %v\nwant status %d and %q", status, out, err, tt.status, tt.want)
			}
		})
	}
}

const saleFile = `
activity: {id: sale, name: Sale, starts_at: 2026-11-11T12:00:00Z, ends_at: 2026-11-11T13:00:00Z, pay_window: 15m}
products:
  - {id: phone, name: Phone, price_cents: 90, currency: CNY, total: 10}
  - {id: case, name: Case, price_cents: 5, currency: CNY, total: 3, per_user: 2}
`

func TestApply(t *testing.T) {
	const missing = `{"type":"urn:x","title":"t","status":404,"detail":"d","instance":"/","code":"product_not_found","retryable":false,"trace_id":"0"}`
	there := map[string]answer{
		"GET /v1/activities/sale":                  {200, activity},
		"GET /v1/activities/sale/products/phone":   {200, phone},
		"GET /v1/activities/sale/products/case":    {404, missing},
		"PATCH /v1/activities/sale/products/phone": {200, phone},
		"POST /v1/activities/sale/products":        {201, phone},
	}
	fresh := map[string]answer{
		"POST /v1/activities":                    {201, activity},
		"POST /v1/activities/sale/products":      {201, phone},
		"GET /v1/activities/sale/products/phone": {404, missing}, "GET /v1/activities/sale/products/case": {404, missing},
	}
	for _, tt := range []struct {
		name    string
		answers map[string]answer
		args    []string
		out     string
		changes []string
	}{
		{"changed and added", there, nil, "activity sale unchanged\nupdate product phone: price_cents 100 → 90\nadd product case\n", []string{
			`PATCH /v1/activities/sale/products/phone {"price_cents":90}`,
			`POST /v1/activities/sale/products {"currency":"CNY","id":"case","name":"Case","per_order":1,"per_user":2,"price_cents":5,"total":3}`,
		}},
		{"dry run", there, []string{"--dry-run"}, "activity sale unchanged\nupdate product phone: price_cents 100 → 90\nadd product case\n", nil},
		{"dry run of a new one", fresh, []string{"--dry-run"}, "create activity sale\nadd product phone\nadd product case\n", nil},
		{"a new one", fresh, nil, "create activity sale\nadd product phone\nadd product case\n", []string{
			`POST /v1/activities {"ends_at":"2026-11-11T13:00:00.000Z","id":"sale","name":"Sale","pay_window_seconds":900,"starts_at":"2026-11-11T12:00:00.000Z"}`,
			`POST /v1/activities/sale/products {"currency":"CNY","id":"phone","name":"Phone","per_order":1,"per_user":1,"price_cents":90,"total":10}`,
			`POST /v1/activities/sale/products {"currency":"CNY","id":"case","name":"Case","per_order":1,"per_user":2,"price_cents":5,"total":3}`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, sent := serve(t, tt.answers)
			out, _, err := run(t, url, saleFile, append([]string{"activity", "apply", "-f", "-"}, tt.args...)...)
			if err != nil || out != tt.out {
				t.Errorf("out %q, %v\nwant %q", out, err, tt.out)
			}
			var changes []string
			for _, s := range *sent {
				if !strings.HasPrefix(s, "GET ") {
					changes = append(changes, s)
				}
			}
			if strings.Join(changes, "\n") != strings.Join(tt.changes, "\n") {
				t.Errorf("sent\n%s\nwant\n%s", strings.Join(changes, "\n"), strings.Join(tt.changes, "\n"))
			}
		})
	}
}

func TestASaleFileThatIsWrongChangesNothing(t *testing.T) {
	url, sent := serve(t, nil)
	for _, tt := range []struct{ name, file, want string }{
		{"a field that is not known", strings.Replace(saleFile, "total: 10", "totl: 10", 1), "field totl not found"},
		{"a number in words", strings.Replace(saleFile, "total: 10", "total: ten", 1), "cannot unmarshal"},
		{"half a unit", strings.Replace(saleFile, "total: 10", "total: 0.5", 1), "cannot unmarshal"},
		{"no ID", strings.Replace(saleFile, "id: sale,", "", 1), "activity.id is missing"},
		{"two of one ID", strings.Replace(saleFile, "id: case", "id: phone", 1), `products[1].id is "phone"`},
		{"two documents", saleFile + "\n---\n" + saleFile, "more than one document"},
		{"nothing", "", "EOF"},
		{"not YAML", "\x00", "control characters"},
		{"endless", strings.Repeat("#", 1<<20+1), "more than 1048576 bytes"},
		{"a bomb of aliases", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nactivity: *b", "field a not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, status, err := run(t, url, tt.file, "activity", "apply", "-f", "-")
			if status != cli.ExitFailed || err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "fix:") {
				t.Errorf("status %d, %v, want %d and %q", status, err, cli.ExitFailed, tt.want)
			}
		})
	}
	if len(*sent) != 0 {
		t.Errorf("sent %v, want nothing", *sent)
	}
}

// TestTheSchemaKnowsWhatApplyKnows writes each field of the schema into a file
// and has apply read it: a field that only one of them knows is found.
func TestTheSchemaKnowsWhatApplyKnows(t *testing.T) {
	out, _, err := run(t, "http://x", "", "activity", "schema")
	if err != nil {
		t.Fatal(err)
	}
	type object struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	var root, act, prod object
	var list struct {
		Items object `json:"items"`
	}
	for _, step := range []struct {
		text []byte
		into any
	}{{[]byte(out), &root}, {nil, &act}, {nil, &list}} {
		text := step.text
		switch step.into {
		case &act:
			text = root.Properties["activity"]
		case &list:
			text = root.Properties["products"]
		}
		if err := json.Unmarshal(text, step.into); err != nil {
			t.Fatal(err)
		}
	}
	prod = list.Items
	if len(act.Properties) != 5 || len(prod.Properties) != 9 {
		t.Errorf("the schema has %d and %d fields, the file 5 and 9", len(act.Properties), len(prod.Properties))
	}
	file := filepath.Join(t.TempDir(), "sale.yaml")
	values := map[string]string{
		"starts_at": "2026-11-11T12:00:00Z", "ends_at": "2026-11-11T13:00:00Z", "pay_window": "15m",
		"price_cents": "1", "total": "1", "per_order": "1", "per_user": "1", "id": "phone",
	}
	write := func(o object) (text string) {
		for name := range o.Properties {
			v := values[name]
			if v == "" {
				v = "X"
			}
			text += name + ": " + v + ", "
		}
		return "{" + strings.TrimSuffix(text, ", ") + "}"
	}
	if err := os.WriteFile(file, []byte("activity: "+write(act)+"\nproducts: ["+write(prod)+"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	url, _ := serve(t, nil)
	if out, _, err := run(t, url, "", "activity", "apply", "--dry-run", "-f", file); err != nil || out != "create activity phone\nadd product phone\n" {
		t.Errorf("%q, %v: apply does not know what the schema knows", out, err)
	}
}
