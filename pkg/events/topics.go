package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/segmentio/kafka-go"
	"go.yaml.in/yaml/v3"

	topicsfile "github.com/leadingpeers/seckill/deploy/kafka"
)

// TopicSpec is one topic of deploy/kafka/topics.yaml.
type TopicSpec struct {
	Name        Topic
	Key         string        // product, reservation, channel, or origin: the key of the dead record
	Group       string        // of ours that reads it, without prefix; "" where only others do
	Retention   time.Duration // how long Kafka keeps a record
	Owner       string        // who writes it
	Description string
	Partitions  int
	Replication int // copies of each partition; fewer brokers get as many as there are
	MinInSync   int // copies that must have a record before it is acknowledged; 1 where Replication is 1
}

// Topics lists every topic of the system, in the order of the file. It panics
// when the file that the program carries is broken: a test of this package
// keeps that from happening.
func Topics() []TopicSpec {
	specs, err := parseTopics(topicsfile.Topics)
	if err != nil {
		panic(err)
	}
	return specs
}

func parseTopics(text []byte) ([]TopicSpec, error) {
	var file struct {
		Defaults struct {
			Partitions  int `yaml:"partitions"`
			Replication int `yaml:"replication"`
			MinInSync   int `yaml:"min_insync_replicas"`
		} `yaml:"defaults"`
		Topics []struct {
			Name        Topic  `yaml:"name"`
			Key         string `yaml:"key"`
			Group       string `yaml:"group"`
			Retention   string `yaml:"retention"`
			Owner       string `yaml:"owner"`
			Description string `yaml:"description"`
		} `yaml:"topics"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		return nil, fmt.Errorf("read topics.yaml: %w", err)
	}
	var out []TopicSpec
	for _, t := range file.Topics {
		days, err := strconv.Atoi(strings.TrimSuffix(t.Retention, "d"))
		if err != nil || days < 1 || !strings.HasSuffix(t.Retention, "d") {
			return nil, fmt.Errorf("read topics.yaml: retention %q of %s: want a number of days such as 7d", t.Retention, t.Name)
		}
		if t.Key != "product" && t.Key != "reservation" && t.Key != "channel" && t.Key != "origin" {
			return nil, fmt.Errorf("read topics.yaml: key %q of %s: want product, reservation, channel or origin", t.Key, t.Name)
		}
		out = append(out, TopicSpec{
			Name: t.Name, Key: t.Key, Group: t.Group, Retention: time.Duration(days) * 24 * time.Hour, Owner: t.Owner, Description: t.Description,
			Partitions: file.Defaults.Partitions, Replication: file.Defaults.Replication, MinInSync: file.Defaults.MinInSync,
		})
	}
	return out, nil
}

// Overrides replaces what topics.yaml says, for small clusters and tests.
type Overrides struct {
	Partitions  int // of each new topic; 0 = as the file says
	Replication int // of each new topic; 0 = as the file says
}

// Apply creates the topics that are missing and returns when every broker
// knows a leader for every partition, and the leaders answer. It never changes a topic that exists:
// more partitions would send keys elsewhere. Repeating it is harmless. On error
// some topics may have been created. It waits for leaders until ctx ends.
func Apply(ctx context.Context, cfg ClientConfig, o Overrides) error {
	cfg = cfg.withDefaults()
	return cfg.withClient(func(client *kafka.Client) error {
		meta, err := client.Metadata(ctx, &kafka.MetadataRequest{})
		if err != nil {
			return fmt.Errorf("apply topics: %w", err)
		}
		var names []string
		var missing []kafka.TopicConfig
		for _, spec := range Topics() {
			spec.Partitions = or(o.Partitions, spec.Partitions)
			spec.Replication = min(or(o.Replication, spec.Replication), len(meta.Brokers))
			name := cfg.TopicName(spec.Name)
			names = append(names, name)
			if !slices.ContainsFunc(meta.Topics, func(t kafka.Topic) bool { return t.Name == name }) {
				missing = append(missing, spec.create(name))
			}
		}
		if err := create(ctx, client, missing); err != nil {
			return err
		}
		for _, b := range meta.Brokers {
			addr := net.JoinHostPort(b.Host, strconv.Itoa(b.Port))
			if err := await(ctx, func() error { return cfg.knowsLeaders(ctx, addr, names) }); err != nil {
				return fmt.Errorf("wait until broker %s knows the topics: %w", addr, err)
			}
		}
		if err := await(ctx, func() error { return leadersAnswer(ctx, client, names) }); err != nil {
			return fmt.Errorf("wait until the topics are served: %w", err)
		}
		return nil
	})
}

func (s TopicSpec) create(name string) kafka.TopicConfig {
	return kafka.TopicConfig{Topic: name, NumPartitions: s.Partitions, ReplicationFactor: s.Replication, ConfigEntries: []kafka.ConfigEntry{
		{ConfigName: "retention.ms", ConfigValue: strconv.FormatInt(s.Retention.Milliseconds(), 10)},
		{ConfigName: "min.insync.replicas", ConfigValue: strconv.Itoa(min(s.MinInSync, s.Replication))},
	}}
}

func create(ctx context.Context, client *kafka.Client, topics []kafka.TopicConfig) error {
	if len(topics) == 0 {
		return nil
	}
	resp, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: topics})
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	var errs []error
	for name, err := range resp.Errors {
		if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) { // somebody else was quicker
			errs = append(errs, fmt.Errorf("create topic %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// knowsLeaders returns nil when the broker names a leader for every partition
// of the topics. Each broker learns of a new topic in its own time.
func (c ClientConfig) knowsLeaders(ctx context.Context, broker string, topics []string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := c.Dialer().DialContext(ctx, "tcp", broker)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	until, _ := ctx.Deadline()
	if err := conn.SetDeadline(until); err != nil {
		return err
	}
	found, err := conn.ReadPartitions(topics...)
	for _, p := range found {
		if p.Leader.Host == "" {
			return fmt.Errorf("%s/%d: %w", p.Topic, p.ID, kafka.LeaderNotAvailable)
		}
	}
	return err
}

// leadersAnswer returns nil when the leaders serve their partitions: they may
// be named a moment before they know it themselves.
func leadersAnswer(ctx context.Context, client *kafka.Client, topics []string) error {
	for _, topic := range topics {
		found, err := partitions(ctx, client, topic)
		for _, p := range found {
			if err == nil {
				_, err = logBounds(ctx, client, topic, p.ID)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// await repeats ask until it returns nil or ctx ends.
func await(ctx context.Context, ask func() error) error {
	pause := backoff.NewExponentialBackOff(backoff.WithInitialInterval(20*time.Millisecond),
		backoff.WithMaxInterval(500*time.Millisecond), backoff.WithMaxElapsedTime(0))
	var last error
	err := backoff.Retry(func() error { last = ask(); return last }, backoff.WithContext(pause, ctx))
	if err != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	return nil
}
