package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/api"
	"github.com/leadingpeers/seckill/pkg/client"
)

func (c *conn) token() *cobra.Command {
	var ttl time.Duration
	var user string
	issue := command("issue ACTIVITY PRODUCT", "Issue a purchase token to a user", func(cmd *cobra.Command, args []string) error {
		return call(cmd, c, fmt.Sprintf("issue a token to user %q", user), view{}, func(ctx context.Context, g gateway) (*client.IssueTokenResponse, error) {
			return g.IssueTokenWithResponse(ctx, api.TokenCreate{ActivityID: args[0], ProductID: args[1], UserID: user, TTLSeconds: int64(ttl / time.Second)})
		})
	})
	issue.Flags().StringVar(&user, "user", "", "who may buy with it")
	issue.Flags().DurationVar(&ttl, "ttl", 2*time.Minute, "how long it is valid, 1s to 1h")
	return c.group("token", "Purchase tokens, one reservation each", required(issue, "user"))
}

func (c *conn) key() *cobra.Command {
	return c.group("key", "Who may call", c.keyCreate(), c.keyList(),
		on1(c, words{"revoke KEY", "Make a key useless, at once and for good", "revoke key"}, view{}, gateway.RevokeKeyWithResponse))
}

func (c *conn) keyCreate() *cobra.Command {
	var body api.KeyCreate
	var role, expires string
	cmd := command("create", "Make a key; its secret is shown once", func(cmd *cobra.Command, _ []string) error {
		var err error
		if body.ExpiresAt, err = moment(cmd, c.now, "expires", expires); err != nil {
			return err
		}
		body.Role = api.Role(role)
		return call(cmd, c, fmt.Sprintf("create key %q", body.ID), view{}, func(ctx context.Context, g gateway) (*client.CreateKeyResponse, error) {
			return g.CreateKeyWithResponse(ctx, body)
		})
	})
	cmd.Flags().StringVar(&body.ID, "id", "", "its `ID`, 1 to 32 characters of a-z, 0-9 and hyphens; made up when it is not given")
	cmd.Flags().StringVar(&role, "role", "", "service, viewer, operator or admin")
	cmd.Flags().StringSliceVar(&body.Activities, "activities", nil, "the activities that a service may act for, by comma; default all")
	cmd.Flags().StringVar(&body.Note, "note", "", "what it is for")
	cmd.Flags().StringVar(&expires, "expires", "", "when it ends, as `time` of RFC 3339 or +720h from now; default never")
	return required(cmd, "role")
}

func (c *conn) keyList() *cobra.Command {
	return command("list", "List the keys, without their secrets", func(cmd *cobra.Command, _ []string) error {
		v := view{"keys", []string{"id", "role", "activities", "note", "created_at", "expires_at", "revoked_at", "last_used_at"}}
		return call(cmd, c, "list keys", v, func(ctx context.Context, g gateway) (*client.ListKeysResponse, error) {
			return g.ListKeysWithResponse(ctx)
		})
	})
}

func (c *conn) audit() *cobra.Command {
	return c.group("audit", "Who changed what", c.auditList(), c.auditVerify())
}

func (c *conn) auditList() *cobra.Command {
	var entity, actor string
	cmd := command("list", "List the changes, latest first", func(cmd *cobra.Command, _ []string) error {
		var params api.ListAuditParams
		if entity != "" {
			params.Entity = &entity
		}
		if actor != "" {
			params.Actor = &actor
		}
		v := view{"entries", []string{"id", "at", "actor", "action", "entity", "before", "after"}}
		return pages(cmd, c, "list the audit trail", v, func(ctx context.Context, g gateway, token *string) (*client.ListAuditResponse, error) {
			params.PageToken = token
			return g.ListAuditWithResponse(ctx, &params)
		})
	})
	cmd.Flags().StringVar(&entity, "entity", "", "only changes of this one, as product/phone")
	cmd.Flags().StringVar(&actor, "actor", "", "only changes by the `key` with this ID")
	return cmd
}

func (c *conn) auditVerify() *cobra.Command {
	return command("verify", "Check that no entry was altered or taken out; exit status 3 if one was", func(cmd *cobra.Command, _ []string) error {
		var verdict *api.AuditVerdict
		err := call(cmd, c, "verify the audit trail", view{}, func(ctx context.Context, g gateway) (*client.VerifyAuditResponse, error) {
			got, err := g.VerifyAuditWithResponse(ctx)
			if err == nil {
				verdict = got.JSON200
			}
			return got, err
		})
		if err == nil && verdict != nil && !verdict.Intact {
			return &failure{what: "the audit trail is not intact", cause: "entry " + fmt.Sprint(verdict.BrokenID) + " is not as it was written: " + verdict.Problem, fix: "compare it with the backups; nobody changes this table in the ordinary course", status: ExitCheck}
		}
		return err
	})
}
