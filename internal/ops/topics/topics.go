// Package topics compares the topics that the brokers have with those of
// deploy/kafka/topics.yaml, says what differs, and changes what can be changed
// without losing records or sending keys elsewhere; the rest only when told to.
package topics

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/pkg/events"
)

// Names of the brokers' settings of a topic.
const (
	retention = "retention.ms"
	minISR    = "min.insync.replicas"
)

// Danger says what a change would do that cannot be undone.
type Danger string

// The dangers. A change without one is made by Apply; Rekeys and Shrinks are
// made when the operator has acknowledged them; nobody can make Impossible.
const (
	Harmless   Danger = ""
	Rekeys     Danger = "rekeys"     // keys move to other partitions: order and locality of what is under way are lost
	Shrinks    Danger = "shrinks"    // records are deleted sooner, or acknowledged by fewer copies
	Impossible Danger = "impossible" // Kafka cannot, or only with its own tools
)

// Change is one difference between the file and the brokers.
type Change struct {
	Topic  string `json:"topic"`          // in full
	What   string `json:"what"`           // topic, partitions, replication, retention.ms or min.insync.replicas
	Have   string `json:"have"`           // what the brokers have; empty for a missing topic
	Want   string `json:"want"`           // what the file says
	Danger Danger `json:"danger"`         // what making it would do
	Note   string `json:"note,omitempty"` // why, and what to do
}

// Status is a topic of the file beside what the brokers have.
type Status struct {
	events.TopicSpec
	FullName        string
	Missing         bool
	HavePartitions  int
	HaveReplication int
	HaveRetention   time.Duration
	HaveMinInSync   int
	Records         int64 // still there, in all partitions
	Changes         []Change
}

// Plan compares every topic of the file, changed by o, with the brokers. It
// changes nothing. An error means that a broker did not answer.
func Plan(ctx context.Context, k *kafkalog.Kafka, o events.Overrides) ([]Status, error) {
	var names []string
	specs := events.Topics()
	for _, s := range specs {
		names = append(names, k.Config().TopicName(s.Name))
	}
	k.Refresh()
	have, brokers, err := k.Topics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("plan topics: %w", err)
	}
	var out []Status
	for i, s := range specs {
		if o.Partitions > 0 {
			s.Partitions = o.Partitions
		}
		if o.Replication > 0 {
			s.Replication = o.Replication
		}
		s.Replication = min(s.Replication, brokers)
		s.MinInSync = min(s.MinInSync, s.Replication)
		status := Status{TopicSpec: s, FullName: names[i], Missing: true}
		if t, there := have[names[i]]; there {
			status.Missing, status.HavePartitions, status.HaveReplication = false, len(t.Partitions), t.Replicas
			if err := status.look(ctx, k); err != nil {
				return nil, fmt.Errorf("plan topics: %w", err)
			}
		}
		status.Changes = status.compare()
		out = append(out, status)
	}
	return out, nil
}

// look reads the settings and the extent of a topic.
func (s *Status) look(ctx context.Context, k *kafkalog.Kafka) error {
	resp, err := k.Client().DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeTopic, ResourceName: s.FullName, ConfigNames: []string{retention, minISR}},
	}})
	if err == nil {
		err = resp.Resources[0].Error
	}
	if err != nil {
		return fmt.Errorf("read the settings of %s: %w", s.FullName, err)
	}
	for _, entry := range resp.Resources[0].ConfigEntries {
		n, err := strconv.ParseInt(entry.ConfigValue, 10, 64)
		if err != nil {
			return fmt.Errorf("setting %s of %s is %q: want a number", entry.ConfigName, s.FullName, entry.ConfigValue)
		}
		switch entry.ConfigName {
		case retention:
			s.HaveRetention = time.Duration(n) * time.Millisecond
		case minISR:
			s.HaveMinInSync = int(n)
		}
	}
	extents, err := k.Extents(ctx, s.FullName)
	for _, e := range extents {
		s.Records += e.End - e.Start
	}
	return err
}

// compare lists what differs.
func (s *Status) compare() (out []Change) {
	if s.Missing {
		want := fmt.Sprintf("%d partitions, %d copies, %s, %d in sync", s.Partitions, s.Replication, days(s.Retention), s.MinInSync)
		return []Change{{Topic: s.FullName, What: "topic", Want: want}}
	}
	add := func(what string, have, want any, danger Danger, note string) {
		out = append(out, Change{Topic: s.FullName, What: what, Have: fmt.Sprint(have), Want: fmt.Sprint(want), Danger: danger, Note: note})
	}
	switch {
	case s.HavePartitions > s.Partitions:
		add("partitions", s.HavePartitions, s.Partitions, Impossible, "Kafka cannot take partitions away: keep them and say --partitions "+strconv.Itoa(s.HavePartitions)+", or make the topic anew when it is empty")
	case s.HavePartitions < s.Partitions && s.Key != "origin": // dead letters are found by their headers
		add("partitions", s.HavePartitions, s.Partitions, Rekeys, "the events of a "+s.Key+" go to another partition than those before: do it while nothing is on sale and all groups have no lag, with --rekey-ack")
	case s.HavePartitions < s.Partitions:
		add("partitions", s.HavePartitions, s.Partitions, Harmless, "")
	}
	if s.HaveReplication != s.Replication {
		add("replication", s.HaveReplication, s.Replication, Impossible, "copies are moved by Kafka's own kafka-reassign-partitions, which limits the traffic that it makes")
	}
	if s.HaveRetention != s.Retention {
		danger, note := Harmless, ""
		if s.HaveRetention < 0 || s.HaveRetention > s.Retention {
			danger, note = Shrinks, "records older than that are deleted at once and cannot be replayed: --shrink-ack"
		}
		add(retention, days(s.HaveRetention), days(s.Retention), danger, note)
	}
	if want := min(s.MinInSync, s.HaveReplication); s.HaveMinInSync != want {
		danger, note := Harmless, ""
		if s.HaveMinInSync > want {
			danger, note = Shrinks, "an acknowledged record may then be on fewer copies: --shrink-ack"
		}
		add(minISR, s.HaveMinInSync, want, danger, note)
	}
	return out
}

// days is a retention as people read it.
func days(d time.Duration) string {
	switch {
	case d < 0:
		return "for ever"
	case d%(24*time.Hour) == 0:
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
	return d.String()
}

// Acknowledged are the dangers that the operator has agreed to.
type Acknowledged struct{ Rekeys, Shrinks bool }

// Apply makes the changes of a fresh plan that are harmless or acknowledged,
// and returns what it has made and what it has left. On an error some changes
// may have been made; running it again is harmless.
func Apply(ctx context.Context, k *kafkalog.Kafka, o events.Overrides, ack Acknowledged) (made, left []Change, err error) {
	plan, err := Plan(ctx, k, o)
	if err != nil {
		return nil, nil, err
	}
	missing := slices.ContainsFunc(plan, func(s Status) bool { return s.Missing })
	if missing {
		if err := events.Apply(ctx, k.Config(), o); err != nil {
			return nil, nil, err
		}
	}
	for _, s := range plan {
		for _, c := range s.Changes {
			if c.Danger == Impossible || (c.Danger == Rekeys && !ack.Rekeys) || (c.Danger == Shrinks && !ack.Shrinks) {
				left = append(left, c)
				continue
			}
			if err := s.make(ctx, k, c); err != nil {
				return made, left, fmt.Errorf("change %s of %s to %s: %w", c.What, c.Topic, c.Want, err)
			}
			made = append(made, c)
		}
	}
	return made, left, nil
}

// make makes one change; a missing topic has been made already.
func (s *Status) make(ctx context.Context, k *kafkalog.Kafka, c Change) error {
	switch c.What {
	case "partitions":
		resp, err := k.Client().CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
			Topics: []kafka.TopicPartitionsConfig{{Name: s.FullName, Count: int32(s.Partitions)}}, //nolint:gosec // a few dozen
		})
		if err == nil {
			err = resp.Errors[s.FullName]
		}
		return err
	case retention:
		return s.set(ctx, k, retention, strconv.FormatInt(s.Retention.Milliseconds(), 10))
	case minISR:
		return s.set(ctx, k, minISR, strconv.Itoa(min(s.MinInSync, s.HaveReplication)))
	}
	return nil
}

// set changes one setting and leaves the others.
func (s *Status) set(ctx context.Context, k *kafkalog.Kafka, name, value string) error {
	resp, err := k.Client().IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: s.FullName,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: name, Value: value, ConfigOperation: kafka.ConfigOperationSet}},
		}},
	})
	if err == nil {
		err = resp.Resources[0].Error
	}
	return err
}

// Find returns the topic of the file that has a name, in full or without the
// prefix.
func Find(cfg events.ClientConfig, name string) (events.TopicSpec, error) {
	var known []string
	for _, s := range events.Topics() {
		if name == string(s.Name) || name == cfg.TopicName(s.Name) {
			return s, nil
		}
		known = append(known, string(s.Name))
	}
	return events.TopicSpec{}, fmt.Errorf("no topic is called %q: want one of %s", name, strings.Join(known, ", "))
}
