package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/keys"
	"github.com/leadingpeers/seckill/internal/mysql"
	"github.com/leadingpeers/seckill/pkg/events"
)

func initCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Prepare a new installation: schema, topics, and the first admin key, which is printed once",
		Long: `Does what migrate and topics apply do, and makes an admin key if there is none.
The key is printed to standard output, and nothing can show it again. Running it
again is harmless.`,
		Args: cobra.NoArgs,
	}
	app.Flags(cmd.Flags(), "")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := app.Load(cmd.Flags(), os.Environ())
		if err != nil {
			return err
		}
		kafka, err := cfg.KafkaConfig("init")
		if err != nil {
			return err
		}
		db, err := mysql.Open(cmd.Context(), mysql.Config{DSN: cfg.MySQL, MaxOpen: 4})
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		if err := mysql.Migrate(cmd.Context(), db, app.NewLogger(cmd.ErrOrStderr(), cfg.LogLevel)); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		if err := events.Apply(cmd.Context(), kafka, events.Overrides{}); err != nil {
			return err
		}
		key, err := keys.NewStore(db).Bootstrap(cmd.Context())
		if err != nil {
			return fmt.Errorf("make the first key: %w", err)
		}
		cmd.PrintErrln("the schema and the topics are up to date")
		if key == "" {
			cmd.PrintErrln("there is an admin key already: make others with seckill key create")
			return nil
		}
		cmd.PrintErrln("the first admin key, which is not shown again:")
		_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
		return err
	}
	return cmd
}
