package stage

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Link is one TCP way from a client to a server, with a proxy in between that
// can be made to misbehave.
type Link struct {
	name     string
	from, to int // ports
	server   *toxiproxy.ApiServer

	mu    sync.Mutex
	proxy *toxiproxy.Proxy
}

// links makes links. Their listeners are closed by close.
type links struct {
	server *toxiproxy.ApiServer
	all    []*Link
}

func newLinks() *links {
	return &links{server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
}

// add opens a link that listens on a port and leads to another.
func (l *links) add(name string, from, to int) (*Link, error) {
	link := &Link{name: name, from: from, to: to, server: l.server}
	if err := link.renew(to); err != nil {
		return nil, err
	}
	l.all = append(l.all, link)
	return link, nil
}

func (l *links) close() {
	for _, link := range l.all {
		link.mu.Lock()
		link.stop()
		link.mu.Unlock()
	}
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// Toxics are the ways in which a link misbehaves.
func Toxics() []string {
	return []string{"latency", "reset_peer", "timeout", "slicer", "limit_data", "bandwidth", "down"}
}

// patience is how long a change of a link may take. toxiproxy waits for every
// connection to move, and one to a process that is stopped does not before the
// schedule has gone on.
const patience = time.Second

// patiently does something and returns its error. What takes longer than
// patience goes on by itself.
func patiently(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return nil
	}
}

// stop closes the listener at once, and what is connected as soon as it moves.
func (l *Link) stop() {
	old := l.proxy
	_ = patiently(func() error { old.Stop(); return nil })
}

// Hurt makes the link misbehave until Heal; a connection on which nothing
// moves, as soon as it does. The kind is one of Toxics.
func (l *Link) Hurt(kind string, rng *rand.Rand) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	attributes := ""
	switch kind {
	case "down":
		l.stop()
		return nil
	case "latency":
		attributes = fmt.Sprintf(`"latency":%d,"jitter":%d`, 20+rng.IntN(1500), rng.IntN(200))
	case "reset_peer":
		attributes = fmt.Sprintf(`"timeout":%d`, rng.IntN(300))
	case "timeout":
		attributes = fmt.Sprintf(`"timeout":%d`, rng.IntN(2)*(100+rng.IntN(900))) // 0: nothing comes through, and the connection stays
	case "slicer":
		attributes = fmt.Sprintf(`"average_size":%d,"size_variation":10,"delay":%d`, 20+rng.IntN(200), 100+rng.IntN(2000))
	case "limit_data":
		attributes = fmt.Sprintf(`"bytes":%d`, 100+rng.IntN(20_000))
	case "bandwidth":
		attributes = fmt.Sprintf(`"rate":%d`, 1+rng.IntN(20))
	default:
		return fmt.Errorf("proxy %s: no toxic %q", l.name, kind)
	}
	stream := []string{"upstream", "downstream"}[rng.IntN(2)]
	toxic := fmt.Sprintf(`{"name":%q,"type":%q,"stream":%q,"attributes":{%s}}`, kind, kind, stream, attributes)
	proxy := l.proxy
	err := patiently(func() error {
		_, err := proxy.Toxics.AddToxicJson(strings.NewReader(toxic))
		return err
	})
	if err != nil {
		return fmt.Errorf("proxy %s: %s: %w", l.name, kind, err)
	}
	return nil
}

// Heal makes the link well again. What is connected is cut, as by a network
// that has been away for long.
func (l *Link) Heal() error { return l.renew(l.to) }

// renew puts a fresh proxy in the place of the old one: taking a toxic off a
// connection that hangs in it can take for ever.
func (l *Link) renew(to int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.proxy != nil {
		l.stop()
	}
	l.to = to
	l.proxy = toxiproxy.NewProxy(l.server, l.name, loopback(l.from), loopback(to))
	if err := l.proxy.Start(); err != nil {
		return fmt.Errorf("proxy %s: %w", l.name, err)
	}
	return nil
}
