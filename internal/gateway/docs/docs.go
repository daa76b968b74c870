// Package docs is the part of the gateway that shows its own contract: the
// text itself, and a page to read and try it. Its assets are in the binary, so
// it works where nothing else can be reached.
package docs

import (
	"net/http"

	"github.com/swaggest/swgui/v5emb"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/internal/gateway/problem"
	"github.com/leadingpeers/seckill/internal/gateway/web"
)

const (
	contract = "/openapi.yaml"
	page     = "/docs"
	// policy lets the page run its own scripts and call this gateway, nothing
	// else. The viewer starts itself by a script in the page.
	policy = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
)

// Routes lists the operations; they are open to everybody.
func Routes() []web.Route {
	ui := v5emb.New("seckill", contract, page)
	show := func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Security-Policy", policy)
		if there := (&present{ResponseWriter: w}); !there.serves(ui, r) {
			return problem.Of(problem.RouteNotFound)
		}
		return nil
	}
	return []web.Route{
		{Name: "GetContract", Method: "GET", Path: contract, Open: true, Handle: text},
		{Name: "GetDocs", Method: "GET", Path: page, Open: true, Handle: show},
		{Name: "GetDocsAsset", Method: "GET", Path: page + "/{asset}", Open: true, Handle: show},
	}
}

// present keeps a 404 of the viewer to itself: the gateway has its own way to
// say that.
type present struct {
	http.ResponseWriter
	missing bool
}

// serves reports whether h had an answer.
func (p *present) serves(h http.Handler, r *http.Request) bool {
	h.ServeHTTP(p, r)
	return !p.missing
}

// WriteHeader passes on every status but 404.
func (p *present) WriteHeader(status int) {
	if p.missing = status == http.StatusNotFound; !p.missing {
		p.ResponseWriter.WriteHeader(status)
	}
}

// Write passes the body on, unless it is that of a 404.
func (p *present) Write(body []byte) (int, error) {
	if p.missing {
		return len(body), nil
	}
	return p.ResponseWriter.Write(body)
}

// text serves the contract as it was written.
func text(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(api.OpenAPI) // the caller has gone; nobody is left to tell
	return nil
}
