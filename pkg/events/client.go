package events

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
)

// FetchWait is the MaxWait of every kafka.Reader here: the broker waits 250 ms for
// something new, and its answer has a second to arrive before the reader tears
// its connection down and begins anew. kafka-go takes MaxWait for both together
// and keeps a second for the way, but a quarter of MaxWait where that is less than
// a second (adjustDeadlineForRTT): of 250 ms that were 62, readers that began at
// once tore down each other's connections for seconds, and a broker that needs
// 250 ms was never read. Closing a Reader may take the 250 ms.
const FetchWait = 1250 * time.Millisecond

// ErrBusy is returned when as many events wait as may. Nothing was written.
var ErrBusy = errors.New("too many events wait to be published")

// ErrClosed is returned after Close. Nothing was written, unless the call had
// begun before Close and ran out of its time.
var ErrClosed = errors.New("publisher is closed")

// PermanentError marks a fault that no retry can cure. A [Consumer] finds the
// record that has it and puts that record among the dead letters.
type PermanentError struct {
	Err   error  // never nil
	Class string // what kind of fault, for operators and metrics: one of a few words; empty means "permanent"
	Of    *Event // the event of the batch that has it; nil = one or more of them, the Consumer must find out
}

// Permanent marks err as one that no retry can cure; nil stays nil. An outage
// is never permanent.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &PermanentError{Err: err}
}

// PermanentAs is [Permanent] with the kind of fault, by which operators choose
// among the dead letters. Take one of a few fixed words: it is the label of a
// metric, too.
func PermanentAs(class string, err error) error {
	if err == nil {
		return nil
	}
	return &PermanentError{Err: err, Class: class}
}

// PermanentOf is [PermanentAs] for one event of a batch, as the handler was given
// it. Join one for each such event: the Consumer puts all of them aside at once
// and has only the others handled again. Without their names it halves the batch
// until each is alone, which takes some twenty calls of the handler for each of a
// few among 500.
func PermanentOf(e Event, class string, err error) error {
	if err == nil {
		return nil
	}
	return &PermanentError{Err: err, Class: class, Of: &e}
}

// Condemned returns what is permanently wrong with the events that err names,
// see [PermanentOf], with the first fault of each.
func Condemned(err error) map[Event]*PermanentError {
	out := make(map[Event]*PermanentError)
	condemn(err, out)
	return out
}

func condemn(err error, out map[Event]*PermanentError) {
	switch e := err.(type) { //nolint:errorlint // the tree is walked here: errors.As stops at the first
	case *PermanentError:
		if e.Of != nil && out[*e.Of] == nil {
			out[*e.Of] = e
		}
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			condemn(err, out)
		}
	case interface{ Unwrap() error }:
		condemn(e.Unwrap(), out)
	}
}

// Error returns the text of the fault.
func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap returns the fault itself.
func (e *PermanentError) Unwrap() error { return e.Err }

// classOf is the class of a permanent error.
func classOf(err error) string {
	var permanent *PermanentError
	if errors.As(err, &permanent) && permanent.Class != "" {
		return permanent.Class
	}
	return "permanent"
}

func isPermanent(err error) bool {
	var permanent *PermanentError
	return errors.As(err, &permanent)
}

// ClientConfig says how to reach Kafka and what names begin with.
type ClientConfig struct {
	Brokers  []string       // host:port of some brokers; the others are learned from them. Required
	Prefix   string         // before every topic and group, with a dot; default "seckill"
	ClientID string         // shown in the brokers' logs and quotas, by a group's member with eight letters and digits behind it; default Prefix
	TLS      *tls.Config    // nil = no TLS
	SASL     sasl.Mechanism // nil = no authentication
}

func (c ClientConfig) withDefaults() ClientConfig {
	if c.Prefix == "" {
		c.Prefix = "seckill"
	}
	if c.ClientID == "" {
		c.ClientID = c.Prefix
	}
	return c
}

// TopicName returns the full name of a topic, for example
// "seckill.reservations".
func (c ClientConfig) TopicName(t Topic) string { return c.withDefaults().Prefix + "." + string(t) }

// GroupName returns the full name of a consumer group, for example
// "seckill.deduct".
func (c ClientConfig) GroupName(group string) string { return c.withDefaults().Prefix + "." + group }

// DeadLetterTopic returns the topic that keeps the dead letters of a group.
func DeadLetterTopic(group string) Topic { return Topic(group + ".dlq") }

const dialTimeout = 3 * time.Second

// Dialer connects readers and groups. It and Transport, which connects
// everything else, carry the same credentials.
func (c ClientConfig) Dialer() *kafka.Dialer {
	c = c.withDefaults()
	return &kafka.Dialer{ClientID: c.ClientID, Timeout: dialTimeout, DualStack: true, TLS: c.TLS, SASLMechanism: c.SASL}
}

// Transport has to be closed by its owner with CloseIdleConnections, or its
// goroutines stay. MetadataTTL bounds how long a moved leader goes unnoticed:
// with kafka-go's default of 6 s writes stalled for up to 3.4 s.
func (c ClientConfig) Transport() *kafka.Transport {
	c = c.withDefaults()
	return &kafka.Transport{
		ClientID: c.ClientID, DialTimeout: dialTimeout, IdleTimeout: 5 * time.Minute,
		MetadataTTL: time.Second, TLS: c.TLS, SASL: c.SASL,
	}
}

func (c ClientConfig) addr() net.Addr { return kafka.TCP(c.Brokers...) }

// withClient runs f with a client of its own, so that what it learns about the
// cluster is fresh.
func (c ClientConfig) withClient(f func(*kafka.Client) error) error {
	transport := c.Transport()
	defer transport.CloseIdleConnections()
	return f(&kafka.Client{Addr: c.addr(), Timeout: 10 * time.Second, Transport: transport})
}

// partitions lists the partitions of a topic, by its full name. The error is
// kafka.UnknownTopicOrPartition when there is no such topic; it is not created.
func partitions(ctx context.Context, client *kafka.Client, topic string) ([]kafka.Partition, error) {
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil, fmt.Errorf("look up topic %s: %w", topic, err)
	}
	if err := meta.Topics[0].Error; err != nil {
		return nil, fmt.Errorf("look up topic %s: %w", topic, err)
	}
	return meta.Topics[0].Partitions, nil
}

// partitionIDs lists the partitions of a topic in their order, with the error
// of partitions.
func partitionIDs(ctx context.Context, client *kafka.Client, topic string) ([]int, error) {
	found, err := partitions(ctx, client, topic)
	ids := make([]int, len(found))
	for i, p := range found {
		ids[i] = p.ID
	}
	slices.Sort(ids)
	return ids, err
}

// partitionOf returns which of a topic's partitions has the events of a key: the
// Publisher's choice, and that of Java's and librdkafka's clients.
func partitionOf(key string, ids []int) int {
	return kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: []byte(key)}, ids...)
}

// bounds are the ends of a partition's log: the first record still there and
// the offset that the next one will get.
type bounds struct{ start, end int64 }

// logBounds returns the bounds of the given partitions of a topic. It asks for
// one partition after another: kafka-go sends a request for each, and opens a
// connection for each that is under way.
func logBounds(ctx context.Context, client *kafka.Client, topic string, ids ...int) (map[int]bounds, error) {
	out := map[int]bounds{}
	for _, id := range ids {
		resp, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
			topic: {kafka.FirstOffsetOf(id), kafka.LastOffsetOf(id)},
		}})
		if err == nil {
			err = resp.Topics[topic][0].Error
		}
		if err != nil {
			return nil, fmt.Errorf("list offsets of %s/%d: %w", topic, id, err)
		}
		got := resp.Topics[topic][0]
		out[id] = bounds{start: got.FirstOffset, end: got.LastOffset}
	}
	return out, nil
}
