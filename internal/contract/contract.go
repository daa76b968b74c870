// Package contract checks, in tests, that the gateway does what
// api/openapi.yaml says: the same routes for the same roles, and no answer
// that the contract does not describe.
package contract

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/leadingpeers/seckill/api"
)

// Contract is api/openapi.yaml, read.
type Contract struct {
	Doc    *openapi3.T
	router routers.Router
}

// Load reads the contract once for all tests of a binary.
var Load = sync.OnceValues(load) //nolint:gochecknoglobals // it is read-only

func load() (*Contract, error) {
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	doc.Servers = nil // any address is served
	router, err := gorillamux.NewRouter(doc)
	return &Contract{Doc: doc, router: router}, err
}

// Handler answers as next does, and fails t for each answer that the contract
// does not describe: a status, a header or a body. What the contract does not
// route must be refused. Of a stream of events only the status is looked at.
//
// What it sees is noted in seen, unless that is nil.
func Handler(t testing.TB, next http.Handler, seen *Coverage) http.Handler {
	t.Helper()
	c, err := Load()
	if err != nil {
		t.Fatalf("api/openapi.yaml: %v", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		route, params, err := c.router.FindRoute(r)
		switch {
		case r.Method == http.MethodHead:
		case err == nil:
			seen.add(route.Operation.OperationID, rec.status)
			c.check(r.Context(), t, rec, &openapi3filter.RequestValidationInput{Request: r, Route: route, PathParams: params})
		case rec.status < http.StatusBadRequest:
			t.Errorf("%s %s answers %d, and the contract has no such route", r.Method, r.URL.Path, rec.status)
		}
	})
}

// recorder keeps what is answered.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

// WriteHeader keeps the status.
func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Write keeps the body.
func (w *recorder) Write(p []byte) (int, error) {
	w.body.Write(p)
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// check fails t when rec is not an answer of the operation.
func (c *Contract) check(ctx context.Context, t testing.TB, rec *recorder, in *openapi3filter.RequestValidationInput) {
	t.Helper()
	options := &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true}
	switch in.Route.Operation.OperationID {
	case "WatchReservation", "ExportOrders", "GetContract", "GetDocs", "GetDocsAsset": // not JSON
		options.ExcludeResponseBody = true
	}
	err := openapi3filter.ValidateResponse(ctx, &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: rec.status, Header: rec.Header(),
		Body: io.NopCloser(bytes.NewReader(rec.body.Bytes())), Options: options,
	})
	if err != nil {
		t.Errorf("%s %s answers what the contract does not describe: %v\n%s", in.Request.Method, in.Request.URL.Path, err, rec.body.Bytes())
	}
}
