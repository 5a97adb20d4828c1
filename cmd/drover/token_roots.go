package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

func newTokenRootsCommand(c *cli) *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use:   "roots",
		Short: "List the keys that tokens are made with",
		Long: `Each organization has a root key that its tokens are made with, and operators
have one. Roots lists them, by their IDs, with those that were rotated and whose
tokens are still taken.`,
		Example: "  drover token roots\n  drover token roots --org acme",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			roots, err := client.TokenRoots(cmd.Context(), org)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(roots)
			}
			t := table{header: []string{"OF", "KEY", "STATE", "TOKENS", "ROTATED"}}
			for _, r := range roots {
				of := r.Organization
				if r.Operator {
					of = "operators"
				}
				t.add(of, r.Key, "in use", r.Tokens, c.agoText(r.RotatedAt))
				for _, old := range r.Retired {
					t.add(of, old.Key, "taken until "+old.Until.UTC().Format(time.DateTime), old.Tokens, "")
				}
			}
			return c.printTable(t, "No root keys. The first token of an organization makes one.")
		},
	}
	cmd.Flags().StringVar(&org, "org", "", "only that of the organization")
	return cmd
}

func newTokenRotateRootCommand(c *cli) *cobra.Command {
	var req apiv1.RotateRootRequest
	var grace string
	var yes bool
	cmd := &cobra.Command{
		Use:   "rotate-root [ORG]",
		Short: "Make an organization's tokens with a new key, and refuse those of the old one",
		Long: `Rotate-root makes a new root key for an organization's tokens, or for those of
operators. Tokens that were made with the one before are refused everywhere
within 5 s; with --grace only when that time is over, so that new ones can be
handed out meanwhile. Without ORG it is the organization of the token that asks.

Opaque tokens have no root key and stay; 'drover token revoke' revokes one.`,
		Example: "  drover token rotate-root acme --grace 7d\n  drover token rotate-root acme --yes\n  drover token rotate-root --operators --grace 24h",
		Args:    atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Operator && len(args) > 0 {
				return usage(cmd, "both an organization and --operators are given")
			}
			if grace != "" && grace != "0" {
				now := c.now()
				until, err := momentOf(grace, now)
				if err != nil {
					return usage(cmd, "--grace is %q; expected a time such as 24h or 7d", grace)
				}
				req.Grace = drover.Duration(until.Sub(now).Round(time.Second))
			}
			client, err := c.connect()
			if err != nil {
				return err
			}
			req.OrgSlug = strings.Join(args, "")
			if !req.Operator && req.OrgSlug == "" {
				who, err := client.Whoami(cmd.Context())
				if err != nil {
					return err
				}
				if who.Organization == "" {
					return usage(cmd, "ORG is missing: whose root key? An operator's token is of no organization; --operators is for theirs")
				}
				req.OrgSlug = who.Organization
			}
			if !yes {
				what, err := c.rotation(cmd.Context(), client, req)
				if err != nil {
					return err
				}
				if err := c.confirm(cmd.Context(), yes, what); err != nil {
					return err
				}
			}
			root, err := client.RotateTokenRoot(cmd.Context(), req)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(root)
			}
			end := "are refused from now on"
			if req.Grace > 0 {
				end = "are taken until " + c.now().Add(time.Duration(req.Grace)).UTC().Format(time.DateTime) + " UTC"
			}
			return c.print("tokens of %s are made with the key %s; those of the one before %s\n", rootHolder(req), root.Key, end)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&req.Operator, "operators", false, "the key of operators' tokens")
	flags.StringVar(&grace, "grace", "", "how long tokens of the old key are still taken, such as 24h or 7d (default not at all)")
	flags.BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func rootHolder(req apiv1.RotateRootRequest) string {
	if req.Operator {
		return "operators"
	}
	return req.OrgSlug
}

// rotation says what a rotation does, for the question whether it is meant.
func (c *cli) rotation(ctx context.Context, cl *client.Client, req apiv1.RotateRootRequest) (string, error) {
	roots, err := cl.TokenRoots(ctx, req.OrgSlug)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(roots, func(r drover.TokenRoot) bool { return r.Operator == req.Operator })
	if i < 0 {
		return "", drover.Errorf(drover.NotFound, "%s: there is no root key, for no token was made there yet", rootHolder(req)).
			WithHint("'drover token roots' lists those that there are")
	}
	end := "at once"
	if req.Grace > 0 {
		end = fmt.Sprintf("after %v", time.Duration(req.Grace))
	}
	return fmt.Sprintf("rotate the root key of %s, which ends %s %s", rootHolder(req), count(roots[i].Tokens, "token"), end), nil
}
