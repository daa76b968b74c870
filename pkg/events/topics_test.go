package events

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/testservers"
)

func TestTopics(t *testing.T) {
	specs := Topics()
	names := map[Topic]TopicSpec{}
	for _, s := range specs {
		names[s.Name] = s
	}
	for _, typ := range types() {
		if _, ok := names[full(typ).Topic()]; !ok {
			t.Errorf("events of type %s have no topic in topics.yaml", typ)
		}
	}
	for _, group := range []string{"deduct", "rollback", "settle", "payment", "channel"} {
		if s := names[DeadLetterTopic(group)]; s.Key != "origin" || s.Retention < names[Rollbacks].Retention {
			t.Errorf("dead letters of %s: %+v, want them kept longer than any event", group, s)
		}
	}
	if s := names[Reservations]; s.Partitions != 12 || s.Replication != 3 || s.MinInSync != 2 || s.Retention != 7*24*time.Hour {
		t.Errorf("reservations: %+v, want 12 partitions, 3 copies, 2 in sync, 7 days", s)
	}
}

func TestParseTopics(t *testing.T) {
	const head = "defaults: {partitions: 12, replication: 3, min_insync_replicas: 2}\ntopics:\n"
	for _, tt := range []struct{ why, text, want string }{
		{"fine", head + "  - {name: a, key: product, retention: 7d, owner: x, description: y}", ""},
		{"a field nobody reads", head + "  - {name: a, key: product, retention: 7d, partitons: 3}", "partitons"},
		{"hours", head + "  - {name: a, key: product, retention: 7h}", "retention"},
		{"for ever", head + "  - {name: a, key: product, retention: 0d}", "retention"},
		{"no key", head + "  - {name: a, retention: 7d}", "key"},
		{"not YAML", "{", "topics.yaml"},
	} {
		_, err := parseTopics([]byte(tt.text))
		if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: error %v, want one about %q", tt.why, err, tt.want)
		}
	}
}

func TestApply(t *testing.T) {
	cfg := ClientConfig{Brokers: testservers.Kafka(t), Prefix: testservers.Prefix(t)}
	apply(t, cfg)
	if err := Apply(t.Context(), cfg, Overrides{Partitions: 3}); err != nil {
		t.Errorf("again, with other partitions: %v", err)
	}
	err := cfg.withClient(func(client *kafka.Client) error {
		for _, s := range Topics() {
			name := cfg.TopicName(s.Name)
			parts, err := partitions(t.Context(), client, name)
			if err != nil {
				return err
			}
			if len(parts) != 2 {
				t.Errorf("%s has %d partitions, want the 2 it was made with", name, len(parts))
			}
			if slices.ContainsFunc(parts, func(p kafka.Partition) bool { return p.Leader.Host == "" }) {
				t.Errorf("%s has a partition without a leader", name)
			}
		}
		resp, err := client.DescribeConfigs(t.Context(), &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
			{ResourceType: kafka.ResourceTypeTopic, ResourceName: cfg.TopicName(Rollbacks), ConfigNames: []string{"retention.ms", "min.insync.replicas"}},
		}})
		if err != nil {
			return err
		}
		got := map[string]string{}
		for _, entry := range resp.Resources[0].ConfigEntries {
			got[entry.ConfigName] = entry.ConfigValue
		}
		if got["retention.ms"] != "1209600000" || got["min.insync.replicas"] != "1" {
			t.Errorf("settings %v, want 14 days, and 1 in sync because there is 1 copy", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestApplyWithoutBroker(t *testing.T) {
	if err := Apply(t.Context(), ClientConfig{Brokers: []string{"127.0.0.1:1"}}, Overrides{}); err == nil {
		t.Error("nobody listens there, and Apply says nothing")
	}
}

func TestLagOfNothing(t *testing.T) {
	cfg := ClientConfig{Brokers: testservers.Kafka(t), Prefix: testservers.Prefix(t)}
	if _, err := Lag(t.Context(), cfg, "deduct", Reservations); err == nil {
		t.Error("there is no such topic, and Lag says nothing")
	}
}
