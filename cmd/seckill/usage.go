package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// usageError is a wrong command line, in three lines. Its exit status is 2.
type usageError struct{ what, cause, fix string }

func (e *usageError) Error() string   { return e.what + "\n  cause: " + e.cause + "\n  fix:   " + e.fix }
func (e *usageError) ExitStatus() int { return 2 }

func wrongUsage(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{"cannot run " + cmd.CommandPath(), fmt.Sprintf(format, args...), cmd.CommandPath() + " --help"}
}

// oneOf checks a flag that allows only some words.
func oneOf(cmd *cobra.Command, flag, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return wrongUsage(cmd, "--%s is %q: want %s", flag, value, strings.Join(allowed, " or "))
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return wrongUsage(cmd, "unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}
