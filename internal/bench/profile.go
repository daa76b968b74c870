package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/leadingpeers/seckill/internal/bench/load"
	"github.com/leadingpeers/seckill/internal/proc"
)

// profile takes a CPU profile of one of our processes while it is loaded with
// as much as it can do, and after it one of what it has ever allocated, if profiles are wanted. Each
// repeat writes over the one before. The channel gets one value, nil when
// there is nothing to do.
func (b *bench) profile(ctx context.Context, p *proc.Process, spec load.Spec) <-chan error {
	done := make(chan error, 1)
	if b.Profiles == "" || p.Ops == "" || spec.Rate > 0 || spec.Duration < 2*time.Second {
		done <- nil
		return done
	}
	name := filepath.Join(b.Profiles, b.section.Name+"-"+p.Name)
	go func() {
		err := save(ctx, "http://"+p.Ops+"/debug/pprof/profile?seconds="+strconv.Itoa(int(spec.Duration.Seconds())), name+".cpu.pprof")
		if err == nil {
			err = save(ctx, "http://"+p.Ops+"/debug/pprof/allocs", name+".allocs.pprof")
		}
		done <- err
	}()
	return done
}

func save(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s answers %s: %.200s", url, resp.Status, body)
	}
	return os.WriteFile(path, body, 0o600)
}
