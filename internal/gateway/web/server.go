package web

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"time"
)

// The limits of a connection: they end slow clients. The handlers' own
// time-outs are shorter; those that may take longer Extend them.
const (
	ReadHeaderTimeout = 2 * time.Second
	ReadTimeout       = 5 * time.Second // header and body
	WriteTimeout      = 10 * time.Second
	IdleTimeout       = time.Minute
	MaxHeaderBytes    = 8 << 10
)

// Server returns an http.Server for h with these limits. Limit the number of
// connections at the listener.
func Server(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: ReadHeaderTimeout,
		ReadTimeout:       ReadTimeout,
		WriteTimeout:      WriteTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // broken handshakes and the like: the clients' doing
	}
}

// Extend lets this one request be answered until the given time, and
// WriteTimeout more. net/http itself has lifted ReadTimeout when a body has
// been read. A connection without deadlines, as in some tests, needs none.
func Extend(w http.ResponseWriter, until time.Time) {
	_ = http.NewResponseController(w).SetWriteDeadline(until.Add(WriteTimeout))
}

// Within is context.WithTimeout for a wait behind which the caller of a request
// waits. It ends sooner when the request must be answered sooner: one that has
// waited for one server already has less time for the next, so that it is
// answered in time however many of them hang.
func Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if c := calledBy(ctx); c != nil {
		d = min(d, time.Until(c.until))
	}
	return context.WithTimeout(ctx, d)
}

// Left is how long after now r must be answered.
func Left(r *http.Request, now time.Time) time.Duration {
	if c := calledBy(r.Context()); c != nil {
		return c.until.Sub(now)
	}
	return math.MaxInt64
}
