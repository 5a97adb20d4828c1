package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
)

func newTokenCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "token",
		Short: "Tokens: who may do what",
		Long: `A token says who may do what. Whoever has one can narrow it without asking
anybody (attenuate); nobody can widen it. What is revoked, with all that was
narrowed from it, is refused everywhere within 5 s. docs/TOKENS.md has the rest.`,
	}, newTokenCreateCommand(c), newTokenAttenuateCommand(c), newTokenListCommand(c), newTokenShowCommand(c), newTokenRevokeCommand(c))
}

// kindOf says what a token is good for, as it was made.
func kindOf(t drover.TokenInfo) string {
	if t.Operator {
		return "operators"
	}
	return t.Organization
}

func (c *cli) tokenState(t drover.TokenInfo) string {
	switch {
	case !t.RevokedAt.IsZero():
		return "revoked"
	case !t.ExpiresAt.IsZero() && !c.now().Before(t.ExpiresAt):
		return "expired"
	}
	return "valid"
}

// caveatTexts lists caveats, but for the end, which has a place of its own.
func caveatTexts(caveats drover.Caveats, without drover.CaveatKind) []string {
	var texts []string
	for _, caveat := range caveats {
		if caveat.Kind != without {
			texts = append(texts, caveat.String())
		}
	}
	return texts
}

func newTokenListCommand(c *cli) *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List tokens, newest first",
		Example: "  drover token list\n  drover token list --org acme",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			tokens, err := client.Tokens(cmd.Context(), org)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(tokens)
			}
			t := table{header: []string{"ID", "NAME", "OF", "STATE", "AGE", "USED", "EXPIRES", "LIMITS"}}
			for _, token := range tokens {
				t.add(token.ID, token.Name, kindOf(token), c.tokenState(token), c.agoText(token.CreatedAt), c.agoText(token.LastUsedAt),
					untilText(token.ExpiresAt), strings.Join(caveatTexts(token.Caveats, drover.CaveatExpires), "; "))
			}
			return c.printTable(t, "No tokens.")
		},
	}
	cmd.Flags().StringVar(&org, "org", "", "only those of the organization")
	return cmd
}

func (c *cli) agoText(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return c.age(at)
}

func untilText(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.UTC().Format(time.DateOnly)
}

func (c *cli) printToken(t drover.TokenInfo) error {
	if c.json {
		return c.printJSON(t)
	}
	moment := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return c.moment(at)
	}
	expires := "never"
	if !t.ExpiresAt.IsZero() {
		expires = t.ExpiresAt.UTC().Format(time.DateTime) + " UTC"
	}
	kind := "opaque: it cannot be narrowed"
	if t.Attenuable {
		kind = "attenuable"
	}
	fields := [][2]string{{"ID", string(t.ID)}, {"Name", t.Name}, {"Of", kindOf(t)}, {"Kind", kind}, {"State", c.tokenState(t)}, {"Created", moment(t.CreatedAt)},
		{"Created by", string(t.CreatedBy)}, {"Last used", moment(t.LastUsedAt)}, {"Expires", expires}, {"Revoked", moment(t.RevokedAt)},
		{"Revoked by", string(t.RevokedBy)}}
	for _, text := range caveatTexts(t.Caveats, "") {
		fields = append(fields, [2]string{"Caveat", text})
	}
	return c.printFields(fields...)
}

func newTokenShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Describe a token",
		Example: "  drover token show tok_8f5c0b1d2e3a4f60",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			t, err := client.Token(cmd.Context(), drover.TokenID(args[0]))
			if err != nil {
				return err
			}
			return c.printToken(t)
		},
	}
}

func newTokenRevokeCommand(c *cli) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "Make a token invalid, and all that was narrowed from it",
		Long: `Revoke makes a token invalid for good, and every token that was narrowed from
it. Every control host refuses them within 5 s. Tokens that were made with it
(token create) are tokens of their own and stay: token list shows them.`,
		Example: "  drover token revoke tok_8f5c0b1d2e3a4f60\n  drover token revoke tok_8f5c0b1d2e3a4f60 --yes",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			if err := c.confirm(cmd.Context(), yes, "revoke the token "+args[0]); err != nil {
				return err
			}
			t, err := client.RevokeToken(cmd.Context(), drover.TokenID(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(t)
			}
			return c.print("token %s (%s) is revoked\n", t.ID, t.Name)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func newWhoamiCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "whoami",
		Short:   "Tell whose token this is, and what limits it",
		Example: "  drover whoami\n  drover whoami --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			w, err := client.Whoami(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(w)
			}
			of := w.Organization
			if w.Operator {
				of = "operators: all organizations"
			}
			fields := [][2]string{{"Name", w.Name}, {"Of", of}, {"Token", string(w.Token)}}
			if len(w.Caveats) == 0 {
				fields = append(fields, [2]string{"Caveat", "none"})
			}
			for _, text := range caveatTexts(w.Caveats, "") {
				fields = append(fields, [2]string{"Caveat", text})
			}
			return c.printFields(fields...)
		},
	}
}
