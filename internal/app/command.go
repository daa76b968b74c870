package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// Role names one of the three processes.
type Role string

// The roles. Two or more copies of each run side by side.
const (
	RoleGateway      Role = "gateway"       // takes units in Redis, answers buyers
	RoleStockWorker  Role = "stock-worker"  // confirms them in MySQL, rolls back, reaps, heals
	RoleSettleWorker Role = "settle-worker" // writes orders, takes payments, cancels what is overdue
)

var roleHelp = map[Role]string{ //nolint:gochecknoglobals // a table that nothing writes
	RoleGateway:      "Serve the HTTP API: take units in Redis and publish the reservation to Kafka",
	RoleStockWorker:  "Confirm reservations in MySQL, roll back, reap and heal",
	RoleSettleWorker: "Write orders, take payments, cancel what is overdue",
}

// Command is the command line of a role: its flags, its help and Run.
func Command(role Role) *cobra.Command {
	cmd := &cobra.Command{
		Use:           string(role),
		Short:         roleHelp[role],
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       Version(),
	}
	Flags(cmd.Flags(), role)
	cmd.Flags().SortFlags = false
	untilStdinCloses := cmd.Flags().Bool("until-stdin-closes", false, "drain when standard input ends, so as not to outlive the process that started this one")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := Load(cmd.Flags(), os.Environ())
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		if *untilStdinCloses {
			var stop context.CancelFunc
			ctx, stop = context.WithCancel(ctx)
			go func() {
				_, _ = io.Copy(io.Discard, cmd.InOrStdin())
				stop()
			}()
		}
		return Run(ctx, role, cfg, NewLogger(cmd.ErrOrStderr(), cfg.LogLevel).With("service", string(role)))
	}
	return cmd
}

// Main runs cmd until it ends or the process is told to stop by SIGTERM or
// SIGINT, which drains it; a second signal ends it at once. The result is the
// exit status: 0 ended well, 1 failed, or what the error's ExitStatus says.
func Main(cmd *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	cmd.PrintErrln("error:", err)
	var status interface{ ExitStatus() int }
	if errors.As(err, &status) {
		return status.ExitStatus()
	}
	return 1
}

// NewLogger writes JSON lines at the given level or above to w.
func NewLogger(w io.Writer, level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l}))
}

// Version is the version of the module this binary was built from, with the
// commit where the build knows it.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 && version == "(devel)" {
			version += " " + s.Value[:12]
		}
	}
	return version
}
