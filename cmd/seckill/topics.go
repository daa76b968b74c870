package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/pkg/events"
)

func topicsCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "topics", Short: "Prepare the Kafka topics", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	apply := &cobra.Command{
		Use:   "apply",
		Short: "Create the topics of deploy/kafka/topics.yaml that are missing; existing ones are left as they are",
		Args:  cobra.NoArgs,
	}
	app.Flags(apply.Flags(), "")
	apply.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := app.Load(cmd.Flags(), os.Environ())
		if err != nil {
			return err
		}
		client, err := cfg.KafkaConfig("topics")
		if err != nil {
			return err
		}
		if err := events.Apply(cmd.Context(), client, events.Overrides{}); err != nil {
			return err
		}
		for _, t := range events.Topics() {
			cmd.Println(client.TopicName(t.Name))
		}
		return nil
	}
	group.AddCommand(apply)
	return group
}
