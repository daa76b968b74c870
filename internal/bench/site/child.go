package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"

	"github.com/leadingpeers/seckill/internal/bench/load"
	"github.com/leadingpeers/seckill/internal/bench/reference"
)

// The hidden subcommands that a site starts its own binary with.
const (
	LoadCommand      = "bench-load"
	ReferenceCommand = "bench-reference"
)

// ServeLoad is the load generator's process: a load.Spec comes in as JSON, a
// load.Result goes out.
func ServeLoad(ctx context.Context, in io.Reader, out io.Writer) error {
	var spec load.Spec
	if err := json.NewDecoder(in).Decode(&spec); err != nil { //nolint:musttag // only this program writes and reads it
		return fmt.Errorf("read what to send: %w", err)
	}
	got, err := load.Run(ctx, spec)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(got) //nolint:musttag // only this program writes and reads it
}

// Reference says which reference server to run.
type Reference struct {
	Kind  string // noop or naive
	Size  int    // bytes of noop's body
	Redis string // address, of naive
	Key   string // of the stock, of naive
}

// ServeReference is a reference server's process. text is a [Reference] as
// JSON. It says in the log where it listens, and ends when in does.
func ServeReference(ctx context.Context, text string, in io.Reader, log *slog.Logger) error {
	var ref Reference
	if err := json.Unmarshal([]byte(text), &ref); err != nil { //nolint:musttag // only this program writes and reads it
		return fmt.Errorf("which reference server: %w", err)
	}
	handler, err := reference.New(ref.Kind, ref.Size, ref.Redis, ref.Key)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler} //nolint:gosec // no limits: none of their cost either
	go func() {
		_, _ = io.Copy(io.Discard, in)
		_ = server.Close()
	}()
	log.Info("listening", "api", ln.Addr().String())
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Cores says where children run: the subject on the first Subject cores and
// the load on the others, where there are any. 0 = everything everywhere.
type Cores struct{ Subject int }

func (c Cores) subject(args []string) []string {
	if c.Subject <= 0 {
		return args
	}
	return pinned("0-"+strconv.Itoa(c.Subject-1), args)
}

func (c Cores) load(args []string) []string {
	switch all := runtime.NumCPU(); {
	case c.Subject <= 0:
		return args
	case c.Subject >= all:
		return pinned("0-"+strconv.Itoa(c.Subject-1), args)
	default:
		return pinned(strconv.Itoa(c.Subject)+"-"+strconv.Itoa(all-1), args)
	}
}

func pinned(cores string, args []string) []string {
	return append([]string{"taskset", "-c", cores}, args...)
}
