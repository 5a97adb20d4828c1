package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

const (
	// maxStdin bounds what exec --json -i reads: as base64 it must fit into a request.
	maxStdin = 512 << 10
	// interruptWait is how long a command may go on after Ctrl-C.
	interruptWait = 10 * time.Second
)

// execFlags say how a command is run in a machine.
type execFlags struct {
	app              string
	interactive, tty bool
	env              []string
	timeout          time.Duration
}

func newMachineExecCommand(c *cli) *cobra.Command { return newExecCommand(c, "drover machine exec") }

// newExecCommand is both 'drover exec' and 'drover machine exec'.
func newExecCommand(c *cli, path string) *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use:   "exec MACHINE -- CMD [ARG...]",
		Short: "Run a command in a started machine",
		Long: `Exec runs a command beside the machine's main process, as root, with the
machine's environment, until it ends. What it writes comes as it is written,
stdout to stdout and stderr to stderr, byte for byte, of any size. With -i the
command gets stdin, to its end; with -t it gets a terminal of its own, which is
then yours: -it is for shells and editors.

The exit code is the command's; 128+N when signal N ended it, 126 or 127 when it
cannot be run, 124 when it took longer than --timeout. Ctrl-C is passed on: to
what runs in the terminal, or, without -t, to the command as SIGINT, and once
more hangs up on it. A command is hung up (SIGHUP, after 2 s SIGKILL) when this
end leaves, or is lost. In a terminal the keys Enter ~ . leave at once.

With --json the result is printed as one object at the end; input and output
are bounded then (512 KiB and 1 MiB), and there is no terminal.`,
		Example: fmt.Sprintf(`  %[1]s 3d8d9c2b7e0a15 -- df -h /data
  %[1]s web -it -- bash
  %[1]s web -- tar c /data | tar x
  tar c . | %[1]s web -i -- tar x -C /data`, path),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage(cmd, "the machine and a command are expected: MACHINE -- CMD [ARG...]")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			cl, m, err := c.machineOf(cmd.Context(), f.app, args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.execJSON(cmd.Context(), cl, m, f, args[1:])
			}
			return c.exec(cmd.Context(), cl, m, f, args[1:])
		},
	}
	addApp(cmd, &f.app)
	c.addExecFlags(cmd, &f)
	cmd.Flags().BoolVarP(&f.interactive, "stdin", "i", false, "give the command what is at stdin")
	cmd.Flags().BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal; stdin and stdout must be one")
	return cmd
}

func (c *cli) addExecFlags(cmd *cobra.Command, f *execFlags) {
	cmd.Flags().StringArrayVarP(&f.env, "env", "e", nil, "set a variable of the command's environment, as NAME=VALUE; may be repeated")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "how long the command may take (default no limit; with --json 1m)")
}

func (f *execFlags) check(cmd *cobra.Command) error {
	if f.timeout < 0 {
		return usage(cmd, "--timeout is %s; expected a span such as 30s", f.timeout)
	}
	return nil
}

// newSSHCommand is exec of a shell with what one expects of it.
func newSSHCommand(c *cli) *cobra.Command {
	f := execFlags{interactive: true}
	cmd := &cobra.Command{
		Use:   "ssh [MACHINE] [-- CMD [ARG...]]",
		Short: "Open a shell in a started machine",
		Long: `Ssh opens a shell in a machine, as root: bash if its image has one, else sh.
There is no SSH server and no key in it: it is the same as 'drover exec -it',
through the API, and works wherever the machine runs. Without MACHINE it takes
the only started machine of the app.

With a command it runs that instead. Without a terminal at stdin and stdout the
shell reads its commands from stdin. Enter ~ . leaves at once.`,
		Example: "  drover ssh web\n  drover ssh -a ledger\n  echo 'df -h' | drover ssh web",
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.json {
				return usage(cmd, "a shell has no --json; 'drover exec --json' runs a command and prints what it left")
			}
			command := args
			name := ""
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				command, args = args[dash:], args[:dash]
			} else {
				command = nil
			}
			if len(args) > 1 {
				return usage(cmd, "unexpected argument %q; a command follows --", args[1])
			}
			if len(args) == 1 {
				name = args[0]
			}
			if err := f.check(cmd); err != nil {
				return err
			}
			cl, m, err := c.startedMachineOf(cmd.Context(), f.app, name)
			if err != nil {
				return err
			}
			_, f.tty = c.terminal()
			return c.exec(cmd.Context(), cl, m, f, command)
		},
	}
	cmd.Flags().StringVarP(&f.app, "app", "a", "", "app that the machine belongs to (default "+appDefaults+")")
	c.addExecFlags(cmd, &f)
	return cmd
}

// startedMachineOf connects and finds the machine that an argument names; without one, the only started machine of the app.
func (c *cli) startedMachineOf(ctx context.Context, app, idOrName string) (*client.Client, apiv1.Machine, error) {
	if idOrName != "" {
		return c.machineOf(ctx, app, idOrName)
	}
	cl, name, err := c.inApp(app)
	if err != nil {
		return nil, apiv1.Machine{}, err
	}
	all, err := cl.Machines(ctx, name)
	if err != nil {
		return nil, apiv1.Machine{}, err
	}
	var started []apiv1.Machine
	for _, m := range all {
		if m.State == drover.StateStarted {
			started = append(started, m)
		}
	}
	switch len(started) {
	case 1:
		return cl, started[0], nil
	case 0:
		return nil, apiv1.Machine{}, drover.Errorf(drover.Precondition, "no machine of app %q is started; it has %d", name, len(all)).
			WithHint("'drover machine list -a %s' shows them, 'drover machine start' starts one", name)
	}
	return nil, apiv1.Machine{}, drover.Errorf(drover.Conflict, "%d machines of app %q are started", len(started), name).
		WithHint("name one, such as %s: 'drover machine list -a %s' shows them", started[0].Name, name)
}

// exec runs a command with its input and output, and ends with its exit code.
func (c *cli) exec(ctx context.Context, cl *client.Client, m apiv1.Machine, f execFlags, command []string) error {
	req := apiv1.ExecStreamRequest{Command: command, Env: f.env, Terminal: f.tty, Timeout: int((f.timeout + time.Second - 1) / time.Second)}
	var stdin io.Reader
	if f.interactive {
		stdin = c.stdin
	}
	if !f.tty {
		return c.runPlain(ctx, cl, m, req, stdin)
	}
	t, ok := c.terminal()
	if !ok {
		return drover.Errorf(drover.Precondition, "cannot give the command a terminal: stdin and stdout are not one here").WithHint("leave out -t")
	}
	req.Size = t.size()
	if name := c.getenv("TERM"); name != "" {
		req.Env = append([]string{"TERM=" + name}, req.Env...)
	}
	return c.runInTerminal(ctx, cl, m, req, t, stdin)
}

// runPlain runs a command without a terminal. The first Ctrl-C is for it.
func (c *cli) runPlain(ctx context.Context, cl *client.Client, m apiv1.Machine, req apiv1.ExecStreamRequest, stdin io.Reader) error {
	cmd, err := cl.Start(ctx, m.App, m.ID, req)
	if err != nil {
		return err
	}
	defer cmd.Close() // it has ended, or is hung up
	work, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	again := make(chan os.Signal, 1)
	stop := context.AfterFunc(ctx, func() {
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		if cmd.Signal("INT") != nil {
			hangUp() // nobody is there to get it
		}
		select {
		case <-again:
		case <-time.After(interruptWait):
		case <-work.Done():
		}
		hangUp()
	})
	defer signal.Stop(again)
	defer stop()
	exit, err := cmd.Run(work, stdin, c.stdout, c.stderr)
	return exitOf(exit, err)
}

// runInTerminal runs a command in a terminal that is this one.
func (c *cli) runInTerminal(ctx context.Context, cl *client.Client, m apiv1.Machine, req apiv1.ExecStreamRequest, t terminal, stdin io.Reader) error {
	cmd, err := cl.Start(ctx, m.App, m.ID, req)
	if err != nil {
		return err
	}
	defer cmd.Close() // it has ended, or is hung up
	restore, err := t.raw()
	if err != nil {
		return err
	}
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	left := errors.New("the keys Enter ~ . were typed")
	if stdin != nil {
		stdin = &escapeReader{r: stdin, left: func() { leave(left) }}
	}
	sizes := make(chan os.Signal, 1)
	signal.Notify(sizes, syscall.SIGWINCH)
	defer signal.Stop(sizes)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-sizes:
				_ = cmd.Resize(t.size()) // a command that is gone has no terminal
			}
		}
	}()
	exit, err := cmd.Run(ctx, stdin, c.stdout, c.stderr)
	if restoreErr := restore(); restoreErr != nil {
		err = errors.Join(err, drover.Errorf(drover.Internal, "the terminal is not as it was: %w", restoreErr).WithHint("type: reset"))
	}
	if errors.Is(context.Cause(ctx), left) {
		fmt.Fprintf(c.stderr, "\nLeft machine %s.\n", m.ID)
		return &exitError{code: exitCode(drover.Canceled)}
	}
	return exitOf(exit, err)
}

// exitOf ends the program as the command has ended.
func exitOf(exit drover.StreamExit, err error) error {
	switch e := drover.AsError(err); {
	case e != nil && e.Code == drover.Canceled && e.Field == drover.TimeoutField:
		return &codedError{cause: err, exit: exitTimedOut}
	case err != nil:
		return err
	case exit.ExitSignal != 0:
		return &exitError{code: 128 + exit.ExitSignal}
	case exit.ExitCode != 0:
		return &exitError{code: exit.ExitCode}
	}
	return nil
}

// execJSON runs a command and prints what it left as one object.
func (c *cli) execJSON(ctx context.Context, cl *client.Client, m apiv1.Machine, f execFlags, command []string) error {
	if f.tty || len(f.env) > 0 {
		return drover.Errorf(drover.Invalid, "--json does not go with --tty and --env").WithHint("sh -c 'NAME=VALUE …' sets a variable")
	}
	req := apiv1.ExecRequest{Command: command, Timeout: int((f.timeout + time.Second - 1) / time.Second), Encoding: apiv1.EncodingBase64}
	if f.interactive {
		data, err := io.ReadAll(io.LimitReader(c.stdin, maxStdin+1))
		if err != nil {
			return drover.Errorf(drover.Invalid, "cannot read stdin: %w", err)
		}
		if len(data) > maxStdin {
			return drover.Errorf(drover.Invalid, "stdin is larger than %s", sizeText(maxStdin)).WithHint("without --json it may have any size")
		}
		req.Stdin = base64.StdEncoding.EncodeToString(data)
	}
	result, err := cl.Exec(ctx, m.App, m.ID, req)
	if err != nil {
		return exitOf(drover.StreamExit{}, err)
	}
	for _, text := range []*string{&result.Stdout, &result.Stderr} {
		data, err := base64.StdEncoding.DecodeString(*text)
		if err != nil {
			return drover.Errorf(drover.Internal, "cannot read the command's output: %w", err)
		}
		*text = string(data)
	}
	if err := c.printJSON(result); err != nil {
		return err
	}
	if result.Truncated {
		fmt.Fprintln(c.stderr, "Note: the output was cut at 1 MiB.")
	}
	return exitOf(drover.StreamExit{ExitCode: result.ExitCode, ExitSignal: result.ExitSignal}, nil)
}
