package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/mysql"
)

func migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the MySQL schema up to this version; safe to run on every deploy, and by several at once",
		Args:  cobra.NoArgs,
	}
	app.Flags(cmd.Flags(), "")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := app.Load(cmd.Flags(), os.Environ())
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
		cmd.Println("the schema is up to date")
		return nil
	}
	return cmd
}
