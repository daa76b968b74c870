package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/pkg/client"
)

func (c *conn) reservation() *cobra.Command {
	timeline := view{"events", []string{"at", "source", "type", "topic", "partition", "offset", "detail"}}
	return c.group("reservation", "Units taken for one buyer",
		c.reservationCreate(), c.reservationGet(), c.reservationWatch(), c.reservationList(), c.reservationCancel(), c.reservationDeduct(),
		on1(c, words{"find RESERVATION", "Find a reservation by its ID alone", "find reservation"}, view{}, gateway.FindReservationWithResponse),
		on1(c, words{"timeline RESERVATION", "Show all that happened to a reservation", "read the timeline of reservation"}, timeline, gateway.GetTimelineWithResponse))
}

const userHelp = "whose it is; not needed with a purchase token"

func (c *conn) reservationCreate() *cobra.Command {
	var body api.ReservationCreate
	var key string
	cmd := command("create ACTIVITY PRODUCT", "Reserve units for a buyer", func(cmd *cobra.Command, args []string) error {
		if key == "" {
			key = uuid.NewString()
		}
		return call(cmd, c, fmt.Sprintf("reserve %d of %q (idempotency key %s)", body.Quantity, args[1], key), view{}, func(ctx context.Context, g gateway) (*client.CreateReservationResponse, error) {
			return g.CreateReservationWithResponse(ctx, args[0], args[1], &api.CreateReservationParams{IdempotencyKey: &key}, body)
		})
	})
	cmd.Flags().StringVar(&body.UserID, "user", "", userHelp)
	cmd.Flags().Int64Var(&body.Quantity, "quantity", 1, "units")
	cmd.Flags().StringVar(&key, "idempotency-key", "", "names the purchase: sent again under the same `key` it takes nothing more; made up when it is not given")
	return cmd
}

func (c *conn) reservationGet() *cobra.Command {
	var user string
	var wait time.Duration
	cmd := command("get ACTIVITY PRODUCT RESERVATION", "Show a reservation, or wait for its next state", func(cmd *cobra.Command, args []string) error {
		params := api.GetReservationParams{Wait: new(wait.String())}
		if user != "" {
			params.UserID = &user
		}
		return call(cmd, c, fmt.Sprintf("get reservation %q", args[2]), view{}, func(ctx context.Context, g gateway) (*client.GetReservationResponse, error) {
			return g.GetReservationWithResponse(ctx, args[0], args[1], args[2], &params)
		})
	})
	cmd.Flags().StringVar(&user, "user", "", userHelp)
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait for up to this `time`, at most 20s, while it is queued")
	return cmd
}

func (c *conn) reservationWatch() *cobra.Command {
	var user string
	cmd := command("watch ACTIVITY PRODUCT RESERVATION", "Follow a reservation until its final state, a line for each", func(cmd *cobra.Command, args []string) error {
		var params api.WatchReservationParams
		if user != "" {
			params.UserID = &user
		}
		if err := c.check(cmd); err != nil {
			return err
		}
		if !cmd.Flags().Changed("timeout") {
			c.timeout = 24 * time.Hour // it waits for people
		}
		return c.with(cmd, fmt.Sprintf("watch reservation %q", args[2]), func(ctx context.Context, g gateway) error {
			stream, err := g.WatchReservation(ctx, args[0], args[1], args[2], &params)
			if err != nil {
				return err
			}
			defer func() { _ = stream.Body.Close() }()
			return c.states(cmd, stream.Body)
		})
	})
	cmd.Flags().StringVar(&user, "user", "", userHelp)
	return cmd
}

// states shows each state that a stream of server-sent events tells, as JSON or
// in a few words.
func (c *conn) states(cmd *cobra.Command, stream io.Reader) error {
	lines := bufio.NewScanner(stream)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue // the name of the event, or a sign of life
		}
		if c.field != "" || c.output == "csv" || c.output == "yaml" {
			if err := c.show(cmd, view{}, []byte(data)); err != nil {
				return err
			}
			continue
		}
		if c.output == "table" {
			var r api.Reservation
			if err := json.Unmarshal([]byte(data), &r); err != nil {
				return fmt.Errorf("the gateway's answer is not a reservation: %w", err)
			}
			data = strings.TrimRight(fmt.Sprintf("%-16s  %s", r.State, first(r.Reason, r.OrderID)), " ")
		}
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), data); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (c *conn) reservationList() *cobra.Command {
	var user string
	cmd := command("list ACTIVITY PRODUCT", "List one user's reservations of a product", func(cmd *cobra.Command, args []string) error {
		v := view{"reservations", []string{"reservation_id", "quantity", "state", "reason", "order_id", "pay_deadline"}}
		return call(cmd, c, fmt.Sprintf("list the reservations of user %q", user), v, func(ctx context.Context, g gateway) (*client.ListReservationsResponse, error) {
			return g.ListReservationsWithResponse(ctx, args[0], args[1], &api.ListReservationsParams{UserID: user})
		})
	})
	cmd.Flags().StringVar(&user, "user", "", "whose they are")
	return required(cmd, "user")
}

func (c *conn) reservationCancel() *cobra.Command {
	var user string
	cmd := command("cancel ACTIVITY PRODUCT RESERVATION", "Give an unpaid reservation up; its units go back", func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("cancel reservation %q", args[2]), view{}, func(ctx context.Context, g gateway) (*client.CancelReservationResponse, error) {
			return g.CancelReservationWithResponse(ctx, args[0], args[1], args[2], api.ReservationCancel{UserID: user})
		})
	})
	cmd.Flags().StringVar(&user, "user", "", userHelp)
	return cmd
}

func (c *conn) reservationDeduct() *cobra.Command {
	var user string
	cmd := command("deduct ACTIVITY PRODUCT RESERVATION", "Have a pending reservation decided now", func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("deduct reservation %q", args[2]), view{}, func(ctx context.Context, g gateway) (*client.DeductReservationResponse, error) {
			return g.DeductReservationWithResponse(ctx, args[0], args[1], args[2], api.ReservationDeduct{UserID: user})
		})
	})
	cmd.Flags().StringVar(&user, "user", "", "whose it is")
	return required(cmd, "user")
}
