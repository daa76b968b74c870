package embedded

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/leadingpeers/seckill/internal/mysql"
)

func open(ctx context.Context, dsn string) (*sql.DB, error) {
	return mysql.Open(ctx, mysql.Config{DSN: dsn})
}

// kafkaClient returns a client, and what ends it.
func kafkaClient(brokers []string) (*kafka.Client, func()) {
	transport := &kafka.Transport{}
	return &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport}, transport.CloseIdleConnections
}

// makeTopic makes a topic with three replicas, if it is missing.
func makeTopic(ctx context.Context, client *kafka.Client, topic string) error {
	made, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: topic, NumPartitions: 1, ReplicationFactor: brokers,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "min.insync.replicas", ConfigValue: "2"}},
	}}})
	if err != nil {
		return err
	}
	if err := made.Errors[topic]; err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		return err
	}
	return nil
}

func produce(ctx context.Context, client *kafka.Client, topic string) error {
	answer, err := client.Produce(ctx, &kafka.ProduceRequest{
		Topic: topic, RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte("value"))}),
	})
	if err != nil {
		return err
	}
	return answer.Error
}

// records returns how many records a topic of one partition has.
func records(t testing.TB, brokers []string, topic string) int64 {
	t.Helper()
	client, done := kafkaClient(brokers)
	defer done()
	offsets, err := client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(0)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := offsets.Topics[topic][0].Error; err != nil {
		t.Fatal(err)
	}
	return offsets.Topics[topic][0].LastOffset
}

func TestKafkaKeepsRecordsAndOffsets(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	for round := range int64(3) {
		k, err := StartKafka(ctx, dir)
		if err != nil {
			t.Fatal(err)
		}
		client, done := kafkaClient(k.Brokers())
		if err := makeTopic(ctx, client, "a"); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := produce(ctx, client, "a"); err != nil {
				t.Fatal(err)
			}
		}
		if n := records(t, k.Brokers(), "a"); n != 2*(round+1) {
			t.Errorf("%d records in round %d, want %d", n, round, 2*(round+1))
		}
		fetched, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: "g", Topics: map[string][]int{"a": {0}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := fetched.Topics["a"]; round > 0 && (len(got) != 1 || got[0].CommittedOffset != round) {
			t.Errorf("the group's offset is %+v in round %d", got, round)
		}
		committed, err := client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
			GroupID: "g", GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{"a": {{Partition: 0, Offset: round + 1}}},
		})
		if err != nil || committed.Topics["a"][0].Error != nil {
			t.Fatal(fmt.Errorf("commit: %w, %v", err, committed))
		}
		done()
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		if err := k.Close(); err != nil {
			t.Errorf("once more: %v", err)
		}
	}
}

func TestKafkaMakesNoTopicByItself(t *testing.T) {
	k, err := StartKafka(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	client, done := kafkaClient(k.Brokers())
	defer done()
	if err := produce(t.Context(), client, "missing"); err == nil {
		t.Error("a topic that nobody made took a record")
	}
}
