package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newSecretsCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "secrets",
		Short: "Secrets: what an app's machines are given and nobody else reads",
		Long: `A secret is a name and a value that every machine of an app gets as a variable
of its environment, from its next start on. Values are kept encrypted, and are
shown only when they are asked for.`,
	}, newSecretsSetCommand(c), newSecretsImportCommand(c), newSecretsListCommand(c), newSecretsUnsetCommand(c))
}

func newSecretsSetCommand(c *cli) *cobra.Command {
	var app string
	var after afterSecrets
	cmd := &cobra.Command{
		Use:   "set NAME=VALUE...",
		Short: "Set secrets",
		Long: `Set stores the secrets, all at once. Machines that run go on with what they were
started with: they are named, and --restart restarts them one after another.
Other users of this computer can see the arguments of a command while it runs;
'drover secrets import' reads from stdin instead.`,
		Example: "  drover secrets set TOKEN=abc PASSWORD=def --app ledger\n  drover secrets set TOKEN=abc --app ledger --restart",
		Args:    atLeastOne("NAME=VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := map[string]*string{}
			for i, arg := range args {
				name, value, ok := strings.Cut(arg, "=")
				if !ok { // it may be a value: it is not repeated
					return usage(cmd, "argument %d is not of the form NAME=VALUE", i+1)
				}
				values[name] = &value
			}
			return c.changeSecrets(cmd.Context(), drover.AppName(app), values, after)
		},
	}
	c.needApp(cmd, &app, "app whose secrets they are")
	after.add(cmd)
	return cmd
}

func newSecretsImportCommand(c *cli) *cobra.Command {
	var app string
	var after afterSecrets
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Set secrets from stdin, one NAME=VALUE on a line",
		Long: `Import reads lines of the form NAME=VALUE and sets them all at once. Empty lines
and lines that begin with # are left out; a value may stand in quotes, and in
three of them (""") over several lines.`,
		Example: "  drover secrets import --app ledger < .env",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			values, err := readSecrets(c.stdin)
			if err != nil {
				return err
			}
			return c.changeSecrets(cmd.Context(), drover.AppName(app), values, after)
		},
	}
	c.needApp(cmd, &app, "app whose secrets they are")
	after.add(cmd)
	return cmd
}

// longQuote begins and ends a value of several lines.
const longQuote = `"""`

// readSecrets reads lines of the form NAME=VALUE. Its errors name lines, never what is on them.
func readSecrets(r io.Reader) (map[string]*string, error) {
	values := map[string]*string{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok {
			return nil, drover.Errorf(drover.Invalid, "line %d is not of the form NAME=VALUE", number)
		}
		if first, long := strings.CutPrefix(value, longQuote); long {
			begun, parts, ended := number, []string{first}, false
			if before, ok := strings.CutSuffix(first, longQuote); ok {
				parts, ended = []string{before}, true
			}
			for !ended && lines.Scan() {
				number++
				text := lines.Text()
				if before, ok := strings.CutSuffix(text, longQuote); ok {
					text, ended = before, true
				}
				parts = append(parts, text)
			}
			if !ended {
				return nil, drover.Errorf(drover.Invalid, "the value that begins in line %d has no end: expected %s after it", begun, longQuote)
			}
			value = strings.Join(parts, "\n")
		} else if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		values[strings.TrimSpace(name)] = &value
	}
	if err := lines.Err(); err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot read stdin: %w", err)
	}
	if len(values) == 0 {
		return nil, drover.Errorf(drover.Invalid, "stdin has no line of the form NAME=VALUE")
	}
	return values, nil
}

func newSecretsListCommand(c *cli) *cobra.Command {
	var app string
	var show bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List secrets, without their values",
		Example: "  drover secrets list --app ledger\n  drover secrets list --app ledger --show",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			list, err := client.Secrets(cmd.Context(), drover.AppName(app), show)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(list)
			}
			t := table{header: []string{"NAME", "DIGEST", "UPDATED"}}
			if show {
				t.header = append(t.header, "VALUE")
			}
			for _, s := range list.Secrets {
				cells := []any{s.Name, s.Digest, c.age(s.UpdatedAt)}
				if s.Value != nil {
					cells = append(cells, *s.Value)
				}
				t.add(cells...)
			}
			return c.printTable(t, "No secrets.")
		},
	}
	c.needApp(cmd, &app, "app whose secrets they are")
	cmd.Flags().BoolVar(&show, "show", false, "show the values too, if the token may see them")
	return cmd
}

func newSecretsUnsetCommand(c *cli) *cobra.Command {
	var app string
	var after afterSecrets
	cmd := &cobra.Command{
		Use:     "unset NAME...",
		Short:   "Remove secrets",
		Example: "  drover secrets unset TOKEN PASSWORD --app ledger",
		Args:    atLeastOne("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := map[string]*string{}
			for _, name := range args {
				values[name] = nil
			}
			if err := c.tellMissing(cmd.Context(), drover.AppName(app), args); err != nil {
				return err
			}
			return c.changeSecrets(cmd.Context(), drover.AppName(app), values, after)
		},
	}
	c.needApp(cmd, &app, "app whose secrets they are")
	after.add(cmd)
	return cmd
}

// tellMissing names those secrets that the app does not have. To remove one again is no error, but a name that was mistyped should not look like one that was
// removed.
func (c *cli) tellMissing(ctx context.Context, app drover.AppName, names []string) error {
	cl, err := c.connect()
	if err != nil {
		return err
	}
	set, err := cl.Secrets(ctx, app, false)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(set.Secrets, func(s apiv1.Secret) bool { return s.Name == name }) {
			fmt.Fprintf(c.stderr, "app %s has no secret %s\n", app, name)
		}
	}
	return nil
}
