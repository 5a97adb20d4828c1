package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/macaroons"
)

// limitFlags are the flags that limit a token.
type limitFlags struct {
	apps, machines, sources      []string
	readOnly, deploy, exec, logs bool
	expiry, notBefore            string
}

func (f *limitFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.apps, "app", nil, "only for the app; repeated: any of them")
	flags.StringSliceVar(&f.machines, "machine", nil, "only for the machine; repeated: any of them")
	flags.BoolVar(&f.readOnly, "read-only", false, "read everything, change nothing")
	flags.BoolVar(&f.deploy, "deploy", false, "read, and change machines, volumes, secrets and releases; no apps, no tokens, no commands in machines")
	flags.BoolVar(&f.exec, "exec", false, "find machines and run commands in them")
	flags.BoolVar(&f.logs, "logs", false, "find machines and read their logs")
	flags.StringVar(&f.expiry, "expiry", "", "valid so long, such as 12h or 30d, or until a time such as 2030-01-31T12:00:00Z")
	flags.StringVar(&f.notBefore, "not-before", "", "not valid before so long from now, or a time")
	flags.StringSliceVar(&f.sources, "source", nil, "only for requests from the network, such as 10.0.0.0/8; repeated: any of them")
}

// caveats are what the flags say. Several classes of actions are added up; all other limits hold together.
func (f *limitFlags) caveats(now time.Time) (drover.Caveats, error) {
	var cs drover.Caveats
	add := func(kind drover.CaveatKind, values []string) {
		if len(values) > 0 {
			cs = append(cs, drover.Caveat{Kind: kind, Values: values})
		}
	}
	add(drover.CaveatApp, f.apps)
	add(drover.CaveatMachine, f.machines)
	var classes []string
	for _, c := range []struct {
		on   bool
		name string
	}{{f.readOnly, "read"}, {f.deploy, "deploy"}, {f.exec, "exec"}, {f.logs, "logs"}} {
		if c.on {
			classes = append(classes, c.name)
		}
	}
	add(drover.CaveatAllow, classes)
	add(drover.CaveatSource, f.sources)
	for _, m := range []struct {
		kind       drover.CaveatKind
		flag, text string
	}{{drover.CaveatNotBefore, "not-before", f.notBefore}, {drover.CaveatExpires, "expiry", f.expiry}} {
		if m.text == "" {
			continue
		}
		at, err := momentOf(m.text, now)
		if err != nil {
			return nil, drover.Errorf(drover.Invalid, "--%s is %q; expected a span such as 12h or 30d, or a time such as 2030-01-31T12:00:00Z", m.flag, m.text)
		}
		cs = append(cs, drover.Moment(m.kind, at))
	}
	for _, caveat := range cs {
		if err := caveat.Valid(); err != nil {
			return nil, err
		}
	}
	return cs, nil
}

// momentOf reads a time, or a span from now.
func momentOf(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 1 || n > 100*366 {
			return time.Time{}, drover.Errorf(drover.Invalid, "%q is no number of days", text)
		}
		return now.AddDate(0, 0, n), nil
	}
	span, err := time.ParseDuration(text)
	if err == nil && span <= 0 {
		err = drover.Errorf(drover.Invalid, "%q is not in the future", text)
	}
	return now.Add(span), err
}

func newTokenCreateCommand(c *cli) *cobra.Command {
	var req apiv1.CreateTokenRequest
	var limits limitFlags
	cmd := &cobra.Command{
		Use:   "create --name NAME",
		Short: "Make a token",
		Long: `Create makes a token of an organization, or for apps of one, and prints it on
stdout, once: it is stored nowhere. What limits the token that asks limits the
new one too.`,
		Example: `  drover token create --name ci --app ledger --deploy --expiry 90d
  drover token create --name grafana --org acme --read-only
  export DROVER_API_TOKEN=$(drover token create --name ann --org acme --expiry 30d)`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.Name == "" {
				return usage(cmd, "--name is missing: say whose token it is, or what for")
			}
			caveats, err := limits.caveats(c.now())
			if err != nil {
				return err
			}
			client, err := c.connect()
			if err != nil {
				return err
			}
			req.Caveats = caveats
			t, err := client.CreateToken(cmd.Context(), req)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(t)
			}
			fmt.Fprintf(c.stderr, "token %s (%s) of %s made; it is not shown again\n", t.ID, t.Name, kindOf(t.TokenInfo))
			return c.print("%s\n", t.Token)
		},
	}
	cmd.Flags().StringVar(&req.Name, "name", "", "whose token it is, or what for")
	cmd.Flags().StringVar(&req.OrgSlug, "org", "", "organization (default that of the app, or of the token that asks)")
	cmd.Flags().BoolVar(&req.Operator, "operator", false, "an operator's token, for all organizations")
	limits.add(cmd)
	return cmd
}

func newTokenAttenuateCommand(c *cli) *cobra.Command {
	var limits limitFlags
	var org string
	cmd := &cobra.Command{
		Use:   "attenuate",
		Short: "Narrow a token, without asking anybody",
		Long: `Attenuate adds limits to the token of --token or DROVER_API_TOKEN, or with
--token - to the one on stdin, and prints the result. No server is asked, and
none has to know. The limits can be added to, and taken away by nobody. To
revoke the result is to revoke the token that it is made of.`,
		Example: `  drover token attenuate --read-only --expiry 1h
  echo "$TOKEN" | drover token attenuate --token - --app ledger --exec`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			caveats, err := limits.caveats(c.now())
			if err != nil {
				return err
			}
			if org != "" {
				caveats = append(caveats, drover.Caveat{Kind: drover.CaveatOrganization, Values: []string{org}})
			}
			if len(caveats) == 0 {
				return usage(cmd, "no limit is given")
			}
			text, err := c.ownToken()
			if err != nil {
				return err
			}
			if !macaroons.Is(text) {
				return drover.Errorf(drover.Precondition, "the token is opaque and cannot be narrowed").
					WithHint("'drover token create' makes one that can")
			}
			narrow, err := macaroons.Attenuate(text, caveats)
			if err != nil {
				return err
			}
			if c.json {
				t, err := macaroons.Read(narrow)
				if err != nil {
					return err
				}
				return c.printJSON(map[string]any{"id": t.ID, "token": narrow, "caveats": t.Caveats()})
			}
			return c.print("%s\n", narrow)
		},
	}
	limits.add(cmd)
	cmd.Flags().StringVar(&org, "org", "", "only for the organization: of an operator's token")
	return cmd
}

// ownToken is the token that the command line was given.
func (c *cli) ownToken() (string, error) {
	switch {
	case c.token == "-":
		data, err := io.ReadAll(io.LimitReader(c.stdin, 64<<10))
		if err != nil {
			return "", drover.Errorf(drover.Invalid, "cannot read the token from stdin: %w", err)
		}
		return strings.TrimSpace(string(data)), nil
	case c.token != "":
		return c.token, nil
	case c.getenv(envToken) != "":
		return c.getenv(envToken), nil
	}
	return "", drover.Errorf(drover.Precondition, "no token to narrow: neither --token nor %s is set", envToken)
}
