package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/leadingpeers/seckill/internal/app"
	"github.com/leadingpeers/seckill/internal/ops/kafkalog"
	"github.com/leadingpeers/seckill/internal/ops/topics"
	"github.com/leadingpeers/seckill/pkg/events"
)

func topicsCommand() *cobra.Command {
	return group("topics", "Compare the Kafka topics with deploy/kafka/topics.yaml, change them, and read events",
		topicsList(), topicsPlan(), topicsApply(), topicsTail())
}

// topicsFlags are those of plan and apply.
func topicsFlags(fs *pflag.FlagSet) *events.Overrides {
	var o events.Overrides
	app.Flags(fs, "")
	fs.IntVar(&o.Partitions, "partitions", 0, "of each topic, instead of what topics.yaml says")
	fs.IntVar(&o.Replication, "replication", 0, "copies of each partition, instead of what topics.yaml says")
	return &o
}

func topicsList() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List the topics of deploy/kafka/topics.yaml, and what the brokers have of them", Args: cobra.NoArgs,
	}
	app.Flags(cmd.Flags(), "")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := oneOf(cmd, "output", output, "table", "json"); err != nil {
			return err
		}
		k, err := openKafka(cmd)
		if err != nil {
			return err
		}
		defer k.Close()
		plan, err := topics.Plan(cmd.Context(), k, events.Overrides{})
		if err != nil {
			return err
		}
		return printTopics(cmd.OutOrStdout(), output, plan)
	}
	return cmd
}

// topicRow is a topic as JSON; of a missing one, as it would be made.
type topicRow struct {
	Topic       string `json:"topic"`
	State       string `json:"state"` // as planned, missing, or differs
	Partitions  int    `json:"partitions"`
	Replication int    `json:"replication"`
	Retention   string `json:"retention"`
	MinInSync   int    `json:"min_insync_replicas"`
	Records     int64  `json:"records"`
	Key         string `json:"key"`
	Owner       string `json:"owner"`
	Reader      string `json:"reader"`
	Description string `json:"description"`
}

func printTopics(w io.Writer, output string, plan []topics.Status) error {
	rows := []topicRow{}
	for _, s := range plan {
		r := topicRow{
			Topic: s.FullName, State: "as planned", Partitions: s.HavePartitions, Replication: s.HaveReplication, Retention: s.HaveRetention.String(),
			MinInSync: s.HaveMinInSync, Records: s.Records, Key: s.Key, Owner: s.Owner, Reader: s.Group, Description: s.Description,
		}
		if len(s.Changes) > 0 {
			r.State = "differs"
		}
		if s.Missing {
			r.State, r.Partitions, r.Replication, r.Retention, r.MinInSync = "missing", s.Partitions, s.Replication, s.Retention.String(), s.MinInSync
		}
		rows = append(rows, r)
	}
	if output == "json" {
		return json.NewEncoder(w).Encode(rows)
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "TOPIC\tSTATE\tPARTITIONS\tCOPIES\tRETENTION\tIN SYNC\tRECORDS\tKEY\tOWNER\tREADER\tDESCRIPTION") // Flush tells of errors
	for _, r := range rows {
		_, _ = fmt.Fprintf(out, "%s\t%s\t%d\t%d\t%s\t%d\t%d\t%s\t%s\t%s\t%s\n", r.Topic, r.State, r.Partitions, r.Replication, r.Retention, r.MinInSync, r.Records, r.Key, r.Owner, dash(r.Reader), r.Description)
	}
	return out.Flush()
}

// checkFailed is an error whose exit status says that a check has found
// something: 3.
type checkFailed struct{ error }

func (checkFailed) ExitStatus() int { return 3 }

func topicsPlan() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what topics apply would change; exit status 3 if anything differs",
		Args:  cobra.NoArgs,
	}
	o := topicsFlags(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := oneOf(cmd, "output", output, "table", "json"); err != nil {
			return err
		}
		k, err := openKafka(cmd)
		if err != nil {
			return err
		}
		defer k.Close()
		plan, err := topics.Plan(cmd.Context(), k, *o)
		if err != nil {
			return err
		}
		changes := []topics.Change{}
		for _, s := range plan {
			changes = append(changes, s.Changes...)
		}
		if output == "json" {
			err = json.NewEncoder(cmd.OutOrStdout()).Encode(changes)
		} else {
			err = printChanges(cmd.OutOrStdout(), "", changes)
		}
		if err == nil && len(changes) > 0 {
			return checkFailed{fmt.Errorf("%d differences between topics.yaml and the brokers\n  fix:   seckill topics apply", len(changes))}
		}
		return err
	}
	return cmd
}

// printChanges shows a diff, one difference a line.
func printChanges(w io.Writer, before string, changes []topics.Change) error {
	for _, c := range changes {
		mark := "~"
		switch {
		case c.Have == "":
			mark = "+"
		case c.Danger != topics.Harmless:
			mark = "!"
		}
		line := fmt.Sprintf("%s%s %s %s: ", before, mark, c.Topic, c.What)
		if c.Have != "" {
			line += c.Have + " -> "
		}
		line += c.Want
		if c.Danger != topics.Harmless {
			line += "\n      " + string(c.Danger) + ": " + c.Note
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func topicsApply() *cobra.Command {
	var ack topics.Acknowledged
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Create the topics that are missing, and change those that differ where that loses nothing",
		Long: `Creates what is missing, and makes retention longer and min.insync.replicas
higher where topics.yaml says so. What would delete records, weaken the
acknowledgement or send keys to other partitions is only shown, and made when
its flag acknowledges it. Exit status 3 when something was left.`,
		Args: cobra.NoArgs,
	}
	o := topicsFlags(cmd.Flags())
	cmd.Flags().BoolVar(&ack.Rekeys, "rekey-ack", false, "add partitions to keyed topics: the events of a key then go to another partition than those before")
	cmd.Flags().BoolVar(&ack.Shrinks, "shrink-ack", false, "make retention shorter, which deletes records, and min.insync.replicas lower")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		k, err := openKafka(cmd)
		if err != nil {
			return err
		}
		defer k.Close()
		made, left, err := topics.Apply(cmd.Context(), k, *o, ack)
		w := cmd.OutOrStdout()
		if err := errors.Join(printChanges(w, "made ", made), printChanges(w, "left ", left), err); err != nil {
			return err
		}
		if len(left) > 0 {
			return checkFailed{fmt.Errorf("%d differences were left as they are; the lines above say why and what would make them", len(left))}
		}
		_, err = fmt.Fprintln(w, "the topics are as topics.yaml says")
		return err
	}
	return cmd
}

func topicsTail() *cobra.Command {
	var q topics.Query
	var since, from, to, output string
	var limit int
	cmd := &cobra.Command{
		Use:   "tail TOPIC",
		Short: "Read the events of a topic, decoded; its name may leave out the prefix",
		Long: `Reads from the oldest record, or from the time given, up to the present end;
with --follow it goes on with what comes, and begins at the end unless told
otherwise. Dead letters are decoded as the events that they were.`,
		Example: "  seckill topics tail reservations --since 10m --product phone\n  seckill topics tail deduct.dlq -o json\n  seckill topics tail orders --follow --type cancelled",
		Args:    cobra.ExactArgs(1),
	}
	app.Flags(cmd.Flags(), "")
	fs := cmd.Flags()
	fs.StringVar(&q.Reservation, "reservation", "", "only events of this reservation `ID`")
	fs.StringVar(&q.Product, "product", "", "only events of this product `ID`")
	fs.StringVar(&q.Type, "type", "", "only events whose type contains this `text`: rollback, order.paid")
	fs.StringVar(&since, "since", "", "only records written within this `time` before now: 10m, 7d")
	fs.StringVar(&from, "from", "", "only records written at this `time` or later: RFC 3339, or how long ago")
	fs.StringVar(&to, "to", "", "only records written before this `time`: RFC 3339, or how long ago")
	fs.BoolVar(&q.Follow, "follow", false, "go on with what comes, until interrupted")
	fs.IntVar(&limit, "limit", 0, "stop after this many; 0 = none")
	fs.StringVarP(&output, "output", "o", "table", "table or json; json is one line an event")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := oneOf(cmd, "output", output, "table", "json"); err != nil {
			return err
		}
		if since != "" && from != "" || q.Follow && to != "" {
			return wrongUsage(cmd, "--since goes without --from, and --follow without --to")
		}
		k, err := openKafka(cmd)
		if err != nil {
			return err
		}
		defer k.Close()
		q.Topic, err = topics.Find(k.Config(), args[0])
		if err != nil {
			return wrongUsage(cmd, "%v", err)
		}
		now := time.Now()
		if q.From, err = topics.Moment(since+from, now); err != nil {
			return wrongUsage(cmd, "--from or --since: %v", err)
		}
		if q.To, err = topics.Moment(to, now); err != nil {
			return wrongUsage(cmd, "--to: %v", err)
		}
		if q.Follow && q.From.IsZero() {
			q.From = now
		}
		return tail(cmd, k, q, output, limit)
	}
	return cmd
}

// errEnough ends a tail that has shown as many as were asked for.
var errEnough = errors.New("enough")

func tail(cmd *cobra.Command, k *kafkalog.Kafka, q topics.Query, output string, limit int) error {
	shown := 0
	err := topics.Tail(cmd.Context(), k, q, func(l topics.Line) error {
		text, err := lineText(l, output)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), text); err != nil {
			return err
		}
		if shown++; shown == limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// lineText is a record on one line.
func lineText(l topics.Line, output string) (string, error) {
	if output == "json" {
		doc := map[string]any{"partition": l.Partition, "offset": l.Offset, "at": l.At, "key": l.Key, "headers": l.Headers}
		if l.Problem != "" {
			doc["problem"] = l.Problem
		} else {
			doc["type"], doc["event"] = l.Event.Type, l.Event
		}
		text, err := json.Marshal(doc)
		return string(text), err
	}
	e := l.Event
	what := strings.TrimSuffix(strings.TrimPrefix(string(e.Type), "seckill."), ".v1")
	if l.Problem != "" {
		what = "no event: " + l.Problem
	}
	parts := []string{l.At.Format("2006-01-02T15:04:05.000Z"), fmt.Sprintf("%d/%d", l.Partition, l.Offset), what}
	for _, p := range [][2]string{
		{"", e.ReservationID},
		{"product=", e.ProductID},
		{"user=", e.UserID},
		{"channel=", e.Channel},
		{"order=", e.OrderID},
		{"reason=", e.Reason},
		{"class=", l.Headers[events.HeaderErrorClass]},
		{"error=", l.Headers[events.HeaderError]},
	} {
		if p[1] != "" {
			parts = append(parts, p[0]+p[1])
		}
	}
	if e.Quantity > 0 {
		parts = append(parts, fmt.Sprintf("quantity=%d", e.Quantity))
	}
	return strings.Join(parts, "  "), nil
}
