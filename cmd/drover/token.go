package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/client"
)

func newTokenCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "token",
		Short: "Tokens: who may do what",
		Long: `A token says who may do what. Whoever has one can narrow it without asking
anybody (attenuate); nobody can widen it. What is revoked, with all that was
narrowed from it, is refused everywhere within 5 s. docs/TOKENS.md has the rest.`,
	}, newTokenCreateCommand(c), newTokenAttenuateCommand(c), newTokenListCommand(c), newTokenShowCommand(c), newTokenRevokeCommand(c),
		newTokenRootsCommand(c), newTokenRotateRootCommand(c))
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

// caveatTexts lists caveats, but for those that have a place of their own.
func caveatTexts(caveats drover.Caveats, without ...drover.CaveatKind) []string {
	var texts []string
	for _, caveat := range caveats {
		if !slices.Contains(without, caveat.Kind) {
			texts = append(texts, caveat.String())
		}
	}
	return texts
}

func newTokenListCommand(c *cli) *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use:     "list",
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
			t := table{header: []string{"ID", "NAME", "OF", "STATE", "AGE", "USED", "EXPIRES", "LIMITS"}, spare: []string{"AGE"}}
			for _, token := range tokens {
				t.add(token.ID, token.Name, kindOf(token), c.tokenState(token), c.agoText(token.CreatedAt), c.agoText(usedAt(token)),
					c.untilText(token.ExpiresAt), strings.Join(caveatTexts(token.Caveats, drover.CaveatExpires, drover.CaveatFrom), "; "))
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

// usedAt is when a token was used last. That is kept to the minute, and the minute may have begun before there was the token.
func usedAt(t drover.TokenInfo) time.Time {
	if !t.LastUsedAt.IsZero() && t.LastUsedAt.Before(t.CreatedAt) {
		return t.CreatedAt
	}
	return t.LastUsedAt
}

// soon is how near an end is told by its time of day as well.
const soon = 48 * time.Hour

func (c *cli) untilText(at time.Time) string {
	switch {
	case at.IsZero():
		return "never"
	case at.Sub(c.now()).Abs() < soon:
		return at.UTC().Format("2006-01-02 15:04")
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
		{"Revoked by", string(t.RevokedBy)}, {"Revoked with", string(t.RevokedWith)}}
	for _, text := range caveatTexts(t.Caveats) {
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
	var yes, keep bool
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "Make a token invalid, with all that was narrowed or made from it",
		Long: `Revoke makes a token invalid for good, with every token that was narrowed from
it (token attenuate), and every one that was made with it (token create), and
so on: whoever has got hold of a token keeps nothing of it. Every control host
refuses them within 5 s, and ends what is under way with them: logs that are
followed, waits, commands in machines.

With --keep-made those that were made with it stay, for a token that is given
up in good order. They can be revoked later by revoking it again without.`,
		Example: "  drover token revoke tok_8f5c0b1d2e3a4f60\n  drover token revoke tok_8f5c0b1d2e3a4f60 --keep-made --yes",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			if !yes {
				what, err := c.revocation(cmd.Context(), client, drover.TokenID(args[0]), keep)
				if err != nil {
					return err
				}
				if err := c.confirm(cmd.Context(), yes, what); err != nil {
					return err
				}
			}
			t, err := client.RevokeToken(cmd.Context(), drover.TokenID(args[0]), keep)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(t)
			}
			if !t.RevokedMade {
				return c.print("token %s (%s) is revoked; those that were made from it are not\n", t.ID, t.Name)
			}
			return c.print("token %s (%s) is revoked, with all that was made from it\n", t.ID, t.Name)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&keep, "keep-made", false, "leave the tokens valid that were made from it")
	return cmd
}

// revocation says what a revocation does, for the question whether it is meant.
func (c *cli) revocation(ctx context.Context, cl *client.Client, id drover.TokenID, keep bool) (string, error) {
	t, err := cl.Token(ctx, id)
	if err != nil {
		return "", err
	}
	what := fmt.Sprintf("revoke the token %s (%s)", t.ID, t.Name)
	if keep {
		return what, nil
	}
	tokens, err := cl.Tokens(ctx, "")
	if err != nil {
		return "", err
	}
	made := 0
	for _, other := range tokens {
		if c.tokenState(other) == "valid" && (other.CreatedBy == id || slices.Contains(other.Caveats.From(), id)) {
			made++
		}
	}
	if made > 0 {
		what += fmt.Sprintf(" and %s made from it", count(made, "token"))
	}
	return what, nil
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
