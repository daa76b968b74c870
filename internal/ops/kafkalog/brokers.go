package kafkalog

import (
	"context"
	"fmt"
	"strconv"

	"github.com/segmentio/kafka-go"
)

// BrokerSettings reads some settings of every broker, by its number. A setting
// that a broker does not have is missing.
func (k *Kafka) BrokerSettings(ctx context.Context, names ...string) (map[int]map[string]string, error) {
	meta, err := k.client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the brokers: %w", err)
	}
	out := map[int]map[string]string{}
	for _, b := range meta.Brokers {
		resp, err := k.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
			{ResourceType: kafka.ResourceTypeBroker, ResourceName: strconv.Itoa(b.ID), ConfigNames: names},
		}})
		if err == nil {
			err = resp.Resources[0].Error
		}
		if err != nil {
			return nil, fmt.Errorf("read the settings of broker %d: %w", b.ID, err)
		}
		out[b.ID] = map[string]string{}
		for _, entry := range resp.Resources[0].ConfigEntries {
			out[b.ID][entry.ConfigName] = entry.ConfigValue
		}
	}
	return out, nil
}
