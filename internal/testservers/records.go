package testservers

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteRecords does what retention does: it deletes the records of a
// partition that lie before an offset. kafka-go has no such request.
func DeleteRecords(t testing.TB, topic string, partition int32, before int64) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(Kafka(t)...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = partition, before
	of := kmsg.NewDeleteRecordsRequestTopic()
	of.Topic, of.Partitions = topic, append(of.Partitions, p)
	req := kmsg.NewDeleteRecordsRequest()
	req.TimeoutMillis, req.Topics = int32(patience.Milliseconds()), append(req.Topics, of)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp, err := req.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("delete the records of %s/%d before %d: %v", topic, partition, before, err)
	}
}
