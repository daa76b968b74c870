package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	// kfake does not compile with the older franz-go that its own go.mod asks
	// for; an import of ours keeps the newer one in go.mod.
	_ "github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
)

// brokers is how many the stand-in has: as many as production keeps replicas,
// so that requests have to find their leaders here too.
const brokers = 3

// Kafka is a stand-in for a Kafka cluster of three brokers. It does not make
// topics by itself.
type Kafka struct {
	cluster *kfake.Cluster
	addrs   []string
	lock    io.Closer
}

// StartKafka starts a Kafka that keeps its topics, records and offsets in dir,
// which is made if it is missing, and continues what is there. What it has
// acknowledged survives a kill of the process. Its addresses are new each time.
func StartKafka(ctx context.Context, dir string) (*Kafka, error) {
	lock, err := claim(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("start Kafka stand-in: %w", err)
	}
	// A real broker wants a session time-out of 6 s or more; a demo that kills a
	// worker does not let people wait that long.
	cluster, err := kfake.NewCluster(kfake.NumBrokers(brokers), kfake.DataDir(dir), kfake.GroupMinSessionTimeout(time.Second))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start Kafka stand-in in %s: %w", dir, err), lock.Close())
	}
	return &Kafka{cluster, cluster.ListenAddrs(), lock}, nil
}

// Brokers returns the addresses, host:port each.
func (k *Kafka) Brokers() []string { return k.addrs }

// Close stops the brokers and writes what they keep. Repeating is harmless.
func (k *Kafka) Close() error {
	k.cluster.Close()
	return k.lock.Close()
}
