// Package cli is the part of the seckill command that talks to a gateway: one
// command for each thing that operations staff and checkouts do, over the HTTP
// API and nothing else. It decides nothing; the gateway does.
package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/leadingpeers/seckill/pkg/client"
)

// The exit statuses, beside 0 for done.
const (
	ExitFailed      = 1 // the gateway said no, or the file is wrong: nothing has changed
	ExitUsage       = 2 // the command line is wrong: nothing was sent
	ExitCheck       = 3 // a check has found something
	ExitUnavailable = 4 // no answer in time: run it again, it finds out
)

// exitHelp stands at the end of every command's help.
const exitHelp = `
Exit status:
  0  done
  1  refused, or a file is wrong; nothing has changed
  2  the command line is wrong; nothing was sent
  3  a check has found something
  4  no answer in time; running it again finds out
`

// Commands returns the commands. getenv reads the environment for what the
// flags leave open: SECKILL_SERVER and SECKILL_KEY. now is for times such as +10m.
func Commands(getenv func(string) string, now func() time.Time) []*cobra.Command {
	c := &conn{getenv: getenv, now: now}
	return []*cobra.Command{
		c.activity(), c.product(), c.stock(), c.channel(), c.cache(), c.reservation(), c.order(), c.token(), c.key(), c.audit(),
	}
}

// conn is how to reach the gateway, and how to show what it says.
type conn struct {
	getenv  func(string) string
	now     func() time.Time
	server  string
	secret  string
	output  string
	field   string
	timeout time.Duration
}

func (c *conn) flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.server, "server", "", "`address` of the gateway; default SECKILL_SERVER or http://localhost:8080")
	fs.StringVar(&c.secret, "key", "", "API `key`, sk_<id>_<secret>; prefer SECKILL_KEY, which other users of the machine cannot see")
	fs.StringVarP(&c.output, "output", "o", "table", "table, json, yaml or csv")
	fs.StringVar(&c.field, "field", "", "show only the member with this `name`, for scripts; one line for each row of a list")
	fs.DurationVar(&c.timeout, "timeout", time.Minute, "give up after this `time`")
}

// group is a command that only holds others.
func (c *conn) group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(cmd, "unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.flags(cmd.PersistentFlags())
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml", "csv"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // no such flag: a slip in this package
	}
	cmd.SetHelpTemplate(cmd.HelpTemplate() + exitHelp)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, "%v", err) })
	cmd.AddCommand(commands...)
	return cmd
}

// command is one that takes exactly the arguments that use names after its
// first word.
func command(use, short string, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	names := strings.Fields(use)[1:]
	return &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != len(names) {
				return usage(cmd, "want %d arguments (%s), got %d", len(names), strings.Join(names, " "), len(args))
			}
			return nil
		},
		RunE: run,
	}
}

// answer is what each generated operation returns.
type answer interface{ GetBody() []byte }

// call makes one request and shows its answer. doing is what it does, in
// words: it stands in the error.
func call[A answer](cmd *cobra.Command, c *conn, doing string, v view, request func(ctx context.Context, g gateway) (A, error)) error {
	if err := c.check(cmd); err != nil {
		return err
	}
	var body []byte
	err := c.with(cmd, doing, func(ctx context.Context, g gateway) error {
		got, err := request(ctx, g)
		if err == nil {
			body = got.GetBody()
		}
		return err
	})
	if err != nil || len(body) == 0 {
		return err
	}
	return c.show(cmd, v, body)
}

// show writes an answer as the flags want it.
func (c *conn) show(cmd *cobra.Command, v view, body []byte) error {
	if c.field != "" {
		return showField(cmd.OutOrStdout(), c.field, v, body)
	}
	return show(cmd.OutOrStdout(), c.output, v, body)
}

// with runs f with a client, and says what failed, why, and what to do.
func (c *conn) with(cmd *cobra.Command, doing string, f func(ctx context.Context, g gateway) error) error {
	g, err := client.New(client.Config{
		Server: first(c.server, c.getenv("SECKILL_SERVER"), "http://localhost:8080"),
		Key:    first(c.secret, c.getenv("SECKILL_KEY")),
		HTTP:   &http.Client{}, // the command's own limit is ctx's
	})
	if err != nil {
		return usage(cmd, "%v", err)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
	defer cancel()
	if err := f(ctx, g); err != nil {
		return explain(doing, err)
	}
	return nil
}

func (c *conn) check(cmd *cobra.Command) error {
	switch c.output {
	case "table", "json", "yaml", "csv":
	default:
		return usage(cmd, "--output is %q: want table, json, yaml or csv", c.output)
	}
	if c.timeout <= 0 {
		return usage(cmd, "--timeout is %s: want more than 0", c.timeout)
	}
	return nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// failure is an error in three lines: what failed, why, what to do.
type failure struct {
	what, cause, fix string
	status           int
	err              error
}

// Error is the three lines; the last one is left out when there is no advice.
func (f *failure) Error() string {
	text := f.what + "\n  cause: " + f.cause
	if f.fix != "" {
		text += "\n  fix:   " + f.fix
	}
	return text
}

// ExitStatus is what the process ends with.
func (f *failure) ExitStatus() int { return f.status }

// Unwrap returns the error behind it.
func (f *failure) Unwrap() error { return f.err }

// usage is a wrong command line.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return &failure{
		what: "cannot run " + cmd.CommandPath(), cause: fmt.Sprintf(format, args...),
		fix: cmd.CommandPath() + " --help", status: ExitUsage,
	}
}

// explain finds the cause and the advice for an error of the client.
func explain(doing string, err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	f := &failure{what: "cannot " + doing, cause: err.Error(), status: ExitUnavailable, err: err}
	problem, ok := errors.AsType[*client.Error](err)
	if !ok {
		f.fix = "check that the gateway runs and that --server (or SECKILL_SERVER) names it; running the command again is harmless"
		return f
	}
	f.cause = problem.Detail + " (" + problem.Code + ")"
	for _, p := range problem.Problems {
		f.cause += "\n         " + p.Field + " " + p.Detail
	}
	f.fix = problem.Hint
	if problem.Status < http.StatusInternalServerError {
		f.status = ExitFailed
	}
	if better, ok := advice()[problem.Code]; ok {
		f.fix = better
	}
	return f
}

// advice is what to do about a problem on the command line, where the hint of
// the API speaks of requests.
func advice() map[string]string {
	return map[string]string{
		"unauthenticated":     "set SECKILL_KEY to a key of this gateway",
		"forbidden":           "set SECKILL_KEY to a key with another role; an admin makes one with seckill key create --role",
		"not_publishable":     "add what is missing; --preload loads the products",
		"in_use":              "pause the activity first, or use --force, which costs time and no unit",
		"precondition_failed": "run it again: without --if-match it takes the version of that moment",
	}
}
