package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"drover"
)

// variable is one that points a client here.
type variable struct{ name, value string }

// clientVariables are all the variables that point clients of the Machines API to a fleet and nowhere else. docs/CLIENTS.md says what each is for; a
// client that is left with one of them unset sends its token, or what it knows of the fleet, to somebody else's servers.
func clientVariables(api, token, configDir string) ([]variable, error) {
	u, err := url.Parse(api)
	if err != nil || u.Host == "" {
		return nil, drover.Errorf(drover.Invalid, "the API's address %q is no URL with a host", api)
	}
	base := u.Scheme + "://" + u.Host
	return []variable{
		{"DROVER_API_URL", base},
		{"DROVER_API_TOKEN", token},
		// The three servers of the official client, and the name that scripts use.
		{"FLY_FLAPS_BASE_URL", base},
		{"FLY_API_BASE_URL", base},
		{"FLY_UIEX_BASE_URL", base},
		{"FLY_API_HOSTNAME", base},
		// The second one wins where both are set: a token of another place must not come here.
		{"FLY_API_TOKEN", token},
		{"FLY_ACCESS_TOKEN", token},
		// What it keeps of this fleet, versions of secrets above all, stays apart from what it keeps of others.
		{"FLY_CONFIG_DIR", configDir},
		// Where a token would go besides.
		{"FLY_REGISTRY_HOST", u.Host},
		{"FLY_METRICS_BASE_URL", base},
		{"FLY_SEND_METRICS", "0"},
		{"FLY_TRACE_COLLECTOR_URL", "127.0.0.1"},
		{"FLY_SYNTHETICS_BASE_URL", base},
		{"FLY_SYNTHETICS_AGENT", "0"},
		{"FLY_STATUSPAGE_UNRESOLVED_INCIDENTS_URL", base + "/api/v1/incidents"},
		{"FLY_NO_INCIDENTS_CHECK", "1"},
		{"FLY_NO_UPDATE_CHECK", "1"},
	}, nil
}

func newEnvCommand(c *cli) *cobra.Command {
	var fish bool
	cmd := &cobra.Command{
		Use:   "env [-- CMD [ARG...]]",
		Short: "Point other clients of the Machines API to this fleet",
		Long: `Env prints the environment variables that make the official client, SDKs and
scripts for the Machines API talk to this fleet, and to nobody else. The fleet's
token is among them. With a command it prints nothing, and runs the command with
the variables; the exit code is the command's.

docs/CLIENTS.md tells which clients work, and what each variable is for.`,
		Example: `  eval "$(drover env)"
  drover env --fish | source
  drover env -- fly status --app ledger`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				return usage(cmd, "unexpected argument %q; a command comes after --", args[0])
			}
			variables, err := c.clientVariables()
			if err != nil {
				return err
			}
			if len(args) > 0 {
				return c.runWith(cmd, variables, args)
			}
			return c.printVariables(variables, fish)
		},
	}
	cmd.Flags().BoolVar(&fish, "fish", false, "print commands for the fish shell")
	return cmd
}

func (c *cli) clientVariables() ([]variable, error) {
	api, token, err := c.where()
	if err != nil {
		return nil, err
	}
	if token == "" {
		return nil, drover.Errorf(drover.Precondition, "there is no token for %s: neither --token nor %s is set", api, envToken).
			WithHint("without one, clients would send the token that they have of another place")
	}
	u, err := url.Parse(api)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "the API's address %q is no URL: %w", api, err)
	}
	dir := filepath.Join(c.getenv("HOME"), ".drover", "clients", strings.NewReplacer(":", "-", "[", "", "]", "").Replace(u.Host))
	return clientVariables(api, token, dir)
}

func (c *cli) printVariables(variables []variable, fish bool) error {
	if c.json {
		all := map[string]string{}
		for _, v := range variables {
			all[v.name] = v.value
		}
		encoder := json.NewEncoder(c.stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(all)
	}
	for _, v := range variables {
		if fish {
			fmt.Fprintf(c.stdout, "set -gx %s %s;\n", v.name, quoteFor(v.value, true))
		} else {
			fmt.Fprintf(c.stdout, "export %s=%s\n", v.name, quoteFor(v.value, false))
		}
	}
	return nil
}

// quoteFor writes a text so that a shell reads it as it is.
func quoteFor(text string, fish bool) string {
	if fish {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// runWith runs a command with the variables in place of those of the same name.
func (c *cli) runWith(cmd *cobra.Command, variables []variable, args []string) error {
	run := exec.CommandContext(cmd.Context(), args[0], args[1:]...)
	run.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.ContainsFunc(variables, func(v variable) bool { return v.name == name })
	})
	for _, v := range variables {
		run.Env = append(run.Env, v.name+"="+v.value)
	}
	run.Stdin, run.Stdout, run.Stderr = c.stdin, c.stdout, c.stderr
	// Ctrl-C reaches the command by the terminal; what it does about it is up to it.
	run.Cancel = func() error { return run.Process.Signal(os.Interrupt) }
	err := run.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return &exitError{code: exit.ExitCode()}
	case err != nil:
		return drover.Errorf(drover.Invalid, "cannot run %q: %w", args[0], err)
	}
	return nil
}
