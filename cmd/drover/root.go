package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
)

// environment is everything that a command gets from outside, so that a test can give it something else.
type environment struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	now            func() time.Time
	// asks: there is somebody at stdin who can answer a question.
	asks bool
	// redraw: stderr is a terminal, on which a line can be drawn again.
	redraw bool
	// width is stdout's, in columns; fit: stdout is a terminal, into which tables are to fit.
	width int
	fit   bool
	// interval is the pause between two looks at what is followed; 0 means the default.
	interval time.Duration
}

// cli is one run of the command line: the environment and the global flags.
type cli struct {
	environment
	api, token, dir string
	json            bool
	// nonce is that of the lease with which machines are changed.
	nonce string
	wide  bool
}

// execute runs the command line and reports its error. The exit code is that of the error's code, or of the command that was
// run in a machine.
func execute(ctx context.Context, args []string, env environment) int {
	c := &cli{environment: env}
	root := newRootCommand(c)
	root.SetArgs(append([]string{}, args...)) // never nil, which would mean os.Args
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	own := args
	if dash := slices.Index(args, "--"); dash >= 0 {
		own = args[:dash]
	}
	// A command line that cannot be read may not have got as far as the flag.
	err := root.ExecuteContext(ctx)
	return report(env.stderr, c.json || slices.Contains(own, "--json"), err)
}

func newRootCommand(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "drover",
		Short: "Run machines with disks on a fleet of hosts, and move them",
		Long: `Drover runs OCI images as small virtual machines ("machines") with block volumes
on a fleet of hosts, and moves any machine off any host, disk and all, in
seconds.

A first session, on one Linux machine:

  drover dev up                                      a whole fleet on this machine
  drover app create ledger
  drover volume create data --app ledger --size 2GiB
  drover machine create debian:12 --app ledger --volume data:/data -- sleep infinity
  drover machine move ID                             to another host, with its volume
  drover migration show ID                           what took how long

The fleet is found by --api and --token, else by DROVER_API_URL and
DROVER_API_TOKEN, else by the dev fleet's file api.json in the directory of
--dir or DROVER_DEV_DIR (default ~/.drover/dev).

With --json a command prints one JSON value, in the forms that the API's document
at /v1/openapi.json describes, and an error as an object at stderr; fields are
only ever added. --watch shows changes in what is listed or shown. The app of
commands that need one is --app, else DROVER_APP, else that of ./fly.toml.
Nouns may be written in their plural, list as ls, and destroy or delete as rm.
'drover completion' lets your shell complete commands and names.

Exit codes: 0 done, 1 internal error, 2 wrong request, 3 not found, 4 conflict
or name taken, 5 not possible in this state, 6 not enough memory or disk, 7 no
answer, 8 not allowed, 130 interrupted.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.SetVersionTemplate("drover {{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&c.api, "api", "", "URL of the API, such as http://127.0.0.1:4280")
	flags.StringVar(&c.token, "token", "", "token for the API")
	flags.StringVar(&c.dir, "dir", "", "directory of the dev fleet")
	flags.BoolVar(&c.json, "json", false, "print JSON instead of text for people")
	flags.BoolVar(&c.wide, "wide", false, "do not cut tables to the width of the terminal")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 {
			return unknownCommand(cmd, words[0]) // its flags are unknown because it is
		}
		return flagError(cmd, err)
	})
	root.AddCommand(subcommands(c)...)
	group(root)
	addOtherNames(root)
	addWatch(c, root)
	addCompletion(c, root)
	return root
}

// subcommands lists the commands below the root.
func subcommands(c *cli) []*cobra.Command {
	return []*cobra.Command{
		newAppCommand(c),
		newMachineCommand(c),
		newVolumeCommand(c),
		newHostCommand(c),
		newSecretsCommand(c),
		newKeyCommand(c),
		newTokenCommand(c),
		newAuditCommand(c),
		newWhoamiCommand(c),
		newMigrationCommand(c),
		newDrainCommand(c),
		newRegionCommand(c),
		newPlatformCommand(c),
		newNetworkCommand(c),
		newWireGuardCommand(c),
		newRecoveryCommand(c),
		newEnvCommand(c),
		newDeployCommand(c),
		newScaleCommand(c),
		newExecCommand(c, "drover exec"),
		newSSHCommand(c),
		newLogsCommand(c),
		newDevCommand(c),
		newServeCommand(c),
		newVersionCommand(c),
	}
}

// group makes a command that only has subcommands: it shows its help, and refuses what it does not have.
func group(cmd *cobra.Command, subcommands ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(subcommands...)
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
	return cmd
}

// unknownCommand is the error of a command that a group does not have.
func unknownCommand(group *cobra.Command, name string) error {
	err := usage(group, "%q has no command %q", group.CommandPath(), name)
	if near := group.SuggestionsFor(name); len(near) > 0 {
		err = err.WithHint("did you mean '%s %s'?", group.CommandPath(), strings.Join(near, "' or '"+group.CommandPath()+" "))
	}
	return err
}

// usage is the error of a command line that is wrong.
func usage(cmd *cobra.Command, format string, args ...any) *drover.Error {
	return drover.Errorf(drover.Invalid, format, args...).WithHint("'%s --help' shows how it is used", cmd.CommandPath())
}

// exactly checks the arguments of a command against their names, which are shown when one is missing.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usage(cmd, "%s is missing", strings.Join(names[len(args):], " and "))
		}
		if len(args) > len(names) {
			return usage(cmd, "unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// confirm asks before something is destroyed. Without somebody to ask it needs yes.
func (c *cli) confirm(ctx context.Context, yes bool, what string) error {
	if yes {
		return nil
	}
	if !c.asks {
		return drover.Errorf(drover.Precondition, "cannot ask whether to %s: stdin is not a terminal", what).WithHint("add --yes if you are sure")
	}
	fmt.Fprintf(c.stderr, "Really %s? [y/N] ", what)
	answers := make(chan string, 1)
	go func() { // ends with the answer, or with the program: a read of a terminal cannot be interrupted
		var answer string
		fmt.Fscanln(c.stdin, &answer) // no answer is a no
		answers <- answer
	}()
	select {
	case answer := <-answers:
		if strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes") {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(c.stderr)
	}
	return drover.Errorf(drover.Canceled, "nothing was done")
}
