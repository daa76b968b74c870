package web

import (
	"log/slog"
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
