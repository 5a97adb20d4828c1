package main

import (
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/client"
)

func newAuditCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "audit",
		Short: "The audit trail: who did what",
		Long: `Every change, every command that was run in a machine, and everything that a
token did not allow is in the audit trail for 90 days. It has no content: no
secrets, no configs, no commands. An organization's token shows what concerns
the organization.`,
	}, newAuditListCommand(c))
}

func newAuditListCommand(c *cli) *cobra.Command {
	var query client.AuditQuery
	var app, token string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what was done and what was refused, newest first",
		Long: `List shows one line for each attempt. The outcome is done, failed, refused (the
token did not allow it), or begun: the control host ended before it could tell
how it went. With --json each has the request's ID, by which the server's log is
searched.`,
		Example: "  drover audit list --app ledger\n  drover audit list --token-id tok_8f5c0b1d2e3a4f60 --since 720h\n  drover audit list --since 1h --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if query.Limit < 1 {
				return usage(cmd, "--limit is %d; expected 1 to 1000", query.Limit)
			}
			client, err := c.connect()
			if err != nil {
				return err
			}
			query.App, query.Token = drover.AppName(app), drover.TokenID(token)
			entries, err := client.Audit(cmd.Context(), query)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(entries)
			}
			t := table{header: []string{"AT", "WHO", "TOKEN", "WHAT", "APP", "OBJECT", "FROM", "OUTCOME"}, spare: []string{"TOKEN", "FROM"}}
			for _, e := range entries {
				outcome := e.Outcome
				if e.Code != "" {
					outcome += " (" + string(e.Code) + ")"
				}
				t.add(e.At.UTC().Format(time.DateTime), e.Name, e.Token, e.Route, e.App, e.Object, e.Source, outcome)
			}
			return c.printTable(t, "Nothing in that time.")
		},
	}
	cmd.Flags().StringVar(&app, "app", "", "only what concerns the app")
	cmd.Flags().StringVar(&token, "token-id", "", "only what was asked with the token of this ID")
	cmd.Flags().StringVar(&query.Organization, "org", "", "only what concerns the organization")
	cmd.Flags().StringVar(&query.Since, "since", "24h", "only what is younger: a span, or a time")
	cmd.Flags().IntVar(&query.Limit, "limit", 100, "so many at most, 1000 the most")
	return cmd
}
