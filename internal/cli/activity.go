package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/pkg/client"
)

// gateway is how the commands call it.
type gateway = *client.ClientWithResponses

func activityColumns() []string {
	return []string{"id", "name", "state", "starts_at", "ends_at", "pay_window_seconds"}
}

func (c *conn) activity() *cobra.Command {
	return c.group("activity", "Sales with a window: create, change, put online",
		c.activityCreate(), c.activityList(), c.activityGet(), c.activityUpdate(), c.activityDelete(), c.activityPublish(),
		on1(c, words{"pause ACTIVITY", "Stop selling for a while", "pause activity"}, view{}, gateway.PauseActivityWithResponse),
		on1(c, words{"resume ACTIVITY", "Go on selling", "resume activity"}, view{}, gateway.ResumeActivityWithResponse),
		on1(c, words{"end ACTIVITY", "Stop selling for good", "end activity"}, view{}, gateway.EndActivityWithResponse),
		c.activityApply(), activitySchema())
}

// window are the flags of an activity.
type window struct {
	name, starts, ends string
	pay                time.Duration
}

func (f *window) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "name", "", "its `name`, 1 to 120 characters")
	cmd.Flags().StringVar(&f.starts, "starts", "", "when it begins, as `time` of RFC 3339 or +10m from now")
	cmd.Flags().StringVar(&f.ends, "ends", "", "when it ends, as `time` of RFC 3339 or +2h from now")
	cmd.Flags().DurationVar(&f.pay, "pay-window", 0, "how long a buyer has to pay, whole seconds, 1s to 24h")
}

// moment reads a time, or a time from now.
func moment(cmd *cobra.Command, now func() time.Time, flag, text string) (api.Millis, error) {
	if text == "" {
		return api.Millis{}, nil
	}
	if text[0] == '+' {
		after, err := time.ParseDuration(text[1:])
		if err != nil {
			return api.Millis{}, usage(cmd, "--%s is %q: want a time such as 2026-11-11T20:00:00+08:00, or +10m", flag, text)
		}
		return api.Millis{Time: now().Add(after)}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return api.Millis{}, usage(cmd, "--%s is %q: want a time such as 2026-11-11T20:00:00+08:00, or +10m", flag, text)
	}
	return api.Millis{Time: at}, nil
}

// update is what the flags change.
func (f *window) update(cmd *cobra.Command, now func() time.Time) (body api.ActivityUpdate, err error) {
	body.Name, body.PayWindowSeconds = f.name, int64(f.pay/time.Second)
	if body.StartsAt, err = moment(cmd, now, "starts", f.starts); err == nil {
		body.EndsAt, err = moment(cmd, now, "ends", f.ends)
	}
	return body, err
}

func (c *conn) activityCreate() *cobra.Command {
	var f window
	var id string
	cmd := command("create", "Create a draft", func(cmd *cobra.Command, _ []string) error {
		u, err := f.update(cmd, c.now)
		if err != nil {
			return err
		}
		body := api.ActivityCreate{ID: id, Name: u.Name, StartsAt: u.StartsAt, EndsAt: u.EndsAt, PayWindowSeconds: u.PayWindowSeconds}
		return call(cmd, c, fmt.Sprintf("create activity %q", id), view{}, func(ctx context.Context, g gateway) (*client.CreateActivityResponse, error) {
			return g.CreateActivityWithResponse(ctx, body)
		})
	})
	cmd.Flags().StringVar(&id, "id", "", "its `ID`, 1 to 36 characters of a-z, 0-9 and hyphens; made up when it is not given")
	f.flags(cmd)
	return required(cmd, "name", "starts", "ends", "pay-window")
}

// required makes flags required.
func required(cmd *cobra.Command, flags ...string) *cobra.Command {
	for _, name := range flags {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // no such flag: a slip in this package
		}
	}
	run := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := run(cmd, args); err != nil {
			return err
		}
		if err := cmd.ValidateRequiredFlags(); err != nil {
			return usage(cmd, "%v", err)
		}
		return nil
	}
	return cmd
}

func (c *conn) activityList() *cobra.Command {
	var state string
	cmd := command("list", "List what is on sale; with a viewer's key, all", func(cmd *cobra.Command, _ []string) error {
		params := api.ListActivitiesParams{}
		if state != "" {
			params.State = new(api.ActivityState(state))
		}
		return pages(cmd, c, "list activities", view{"activities", activityColumns()}, func(ctx context.Context, g gateway, token *string) (*client.ListActivitiesResponse, error) {
			params.PageToken = token
			return g.ListActivitiesWithResponse(ctx, &params)
		})
	})
	cmd.Flags().StringVar(&state, "state", "", "only those that are draft, online, paused or ended")
	return cmd
}

func (c *conn) activityGet() *cobra.Command {
	return command("get ACTIVITY", "Show an activity", func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("get activity %q", args[0]), view{}, func(ctx context.Context, g gateway) (*client.GetActivityResponse, error) {
			return g.GetActivityWithResponse(ctx, args[0], nil)
		})
	})
}

// version is the ETag of an activity as it is now, unless the caller has given
// one.
func version(ctx context.Context, g gateway, activity, given string) (*string, error) {
	if given != "" {
		return &given, nil
	}
	got, err := g.GetActivityWithResponse(ctx, activity, nil)
	if err != nil {
		return nil, err
	}
	return new(got.HTTPResponse.Header.Get("ETag")), nil
}

const ifMatchHelp = "only if it still has this `ETag`; default: as it is now"

func (c *conn) activityUpdate() *cobra.Command {
	var f window
	var etag string
	cmd := command("update ACTIVITY", "Change what the flags name", func(cmd *cobra.Command, args []string) error {
		body, err := f.update(cmd, c.now)
		if err != nil {
			return err
		}
		return call(cmd, c, fmt.Sprintf("update activity %q", args[0]), view{}, func(ctx context.Context, g gateway) (*client.UpdateActivityResponse, error) {
			match, err := version(ctx, g, args[0], etag)
			if err != nil {
				return nil, err
			}
			return g.UpdateActivityWithResponse(ctx, args[0], &api.UpdateActivityParams{IfMatch: match}, body)
		})
	})
	f.flags(cmd)
	cmd.Flags().StringVar(&etag, "if-match", "", ifMatchHelp)
	return cmd
}

func (c *conn) activityDelete() *cobra.Command {
	var etag string
	cmd := command("delete ACTIVITY", "Delete an activity of which nothing was ever reserved", func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("delete activity %q", args[0]), view{}, func(ctx context.Context, g gateway) (*client.DeleteActivityResponse, error) {
			match, err := version(ctx, g, args[0], etag)
			if err != nil {
				return nil, err
			}
			return g.DeleteActivityWithResponse(ctx, args[0], &api.DeleteActivityParams{IfMatch: match})
		})
	})
	cmd.Flags().StringVar(&etag, "if-match", "", ifMatchHelp)
	return cmd
}

func (c *conn) activityPublish() *cobra.Command {
	var preload bool
	cmd := command("publish ACTIVITY", "Put an activity online, or say all that is in the way", func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("publish activity %q", args[0]), view{}, func(ctx context.Context, g gateway) (*client.PublishActivityResponse, error) {
			return g.PublishActivityWithResponse(ctx, args[0], api.Publish{Preload: preload})
		})
	})
	cmd.Flags().BoolVar(&preload, "preload", false, "load the products that are not in Redis")
	return cmd
}

// words are what a command says of itself.
type words struct {
	use, short string // in its help
	doing      string // in its errors, before the name of the thing
}

// on1 is a command on one thing that sends no body.
func on1[A answer](c *conn, say words, v view, request func(gateway, context.Context, string, ...client.RequestEditorFn) (A, error)) *cobra.Command {
	return command(say.use, say.short, func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("%s %q", say.doing, args[0]), v, func(ctx context.Context, g gateway) (A, error) {
			return request(g, ctx, args[0])
		})
	})
}

// on2 is a command on a product of an activity that sends no body.
func on2[A answer](c *conn, say words, v view, request func(gateway, context.Context, string, string, ...client.RequestEditorFn) (A, error)) *cobra.Command {
	return command(say.use, say.short, func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("%s %q of activity %q", say.doing, args[1], args[0]), v, func(ctx context.Context, g gateway) (A, error) {
			return request(g, ctx, args[0], args[1])
		})
	})
}

// pages shows all pages of a list as one.
func pages[A answer](cmd *cobra.Command, c *conn, doing string, v view, request func(ctx context.Context, g gateway, token *string) (A, error)) error {
	if err := c.check(cmd); err != nil {
		return err
	}
	rows := []json.RawMessage{}
	err := c.with(cmd, doing, func(ctx context.Context, g gateway) error {
		for token := (*string)(nil); ; {
			got, err := request(ctx, g, token)
			if err != nil {
				return err
			}
			var page map[string]json.RawMessage
			var some []json.RawMessage
			var next string
			if err := json.Unmarshal(got.GetBody(), &page); err != nil {
				return err
			}
			if err := json.Unmarshal(page[v.rows], &some); err != nil {
				return err
			}
			rows = append(rows, some...)
			if page["next_page_token"] == nil {
				return nil
			}
			if err := json.Unmarshal(page["next_page_token"], &next); err != nil || next == "" {
				return err
			}
			token = &next
		}
	})
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string][]json.RawMessage{v.rows: rows})
	if err != nil {
		return err
	}
	return c.show(cmd, v, body)
}
