package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

// maxStdin bounds what exec -i reads: as base64 it must fit into a request.
const maxStdin = 512 << 10

func newMachineExecCommand(c *cli) *cobra.Command {
	var app string
	var timeout time.Duration
	var stdin bool
	cmd := &cobra.Command{
		Use:   "exec ID -- CMD [ARG...]",
		Short: "Run a command in a started machine",
		Long: `Exec runs a command beside the machine's main process, waits for its end, and
writes what it wrote: stdout to stdout, stderr to stderr, byte for byte. The
exit code is the command's; 128+N when signal N ended it. With --json the result
is printed instead.`,
		Example: `  drover machine exec 3d8d9c2b7e0a15 -- df -h /data
  drover machine exec 3d8d9c2b7e0a15 --stdin -- sh -c 'cat > /data/in' < in`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage(cmd, "the machine's ID and a command are expected: ID -- CMD [ARG...]")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			req := apiv1.ExecRequest{Command: args[1:], Timeout: int((timeout + time.Second - 1) / time.Second), Encoding: apiv1.EncodingBase64}
			if stdin {
				data, err := io.ReadAll(io.LimitReader(c.stdin, maxStdin+1))
				if err != nil {
					return drover.Errorf(drover.Invalid, "cannot read stdin: %w", err)
				}
				if len(data) > maxStdin {
					return drover.Errorf(drover.Invalid, "stdin is larger than %s", sizeText(maxStdin))
				}
				req.Stdin = base64.StdEncoding.EncodeToString(data)
			}
			result, err := client.Exec(cmd.Context(), m.App, m.ID, req)
			if err != nil {
				return err
			}
			return c.printExec(result)
		},
	}
	addApp(cmd, &app)
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long the command may take, 10m at most")
	cmd.Flags().BoolVarP(&stdin, "stdin", "i", false, "give the command what is at stdin, 512 KiB at most")
	return cmd
}

// printExec writes the command's output and ends with its exit code.
func (c *cli) printExec(result apiv1.ExecResult) error {
	for _, stream := range []struct {
		text *string
		to   io.Writer
	}{{&result.Stdout, c.stdout}, {&result.Stderr, c.stderr}} {
		data, err := base64.StdEncoding.DecodeString(*stream.text)
		if err != nil {
			return drover.Errorf(drover.Internal, "cannot read the command's output: %w", err)
		}
		if *stream.text = string(data); c.json {
			continue
		}
		if _, err := stream.to.Write(data); err != nil {
			return drover.Errorf(drover.Internal, "cannot write the command's output: %w", err)
		}
	}
	if c.json {
		if err := c.printJSON(result); err != nil {
			return err
		}
	}
	if result.Truncated {
		fmt.Fprintln(c.stderr, "Note: the output was cut at 1 MiB.")
	}
	switch {
	case result.ExitSignal != 0:
		return &exitError{code: 128 + result.ExitSignal}
	case result.ExitCode != 0:
		return &exitError{code: result.ExitCode}
	}
	return nil
}

func newMachineLogsCommand(c *cli) *cobra.Command {
	var app string
	var follow, times bool
	var tail int
	cmd := &cobra.Command{
		Use:   "logs ID",
		Short: "Print what a machine's main process wrote",
		Long: `Logs prints the last lines of what the main process wrote to stdout and stderr.
With -f it goes on as lines are written, also when the machine moves, until
Ctrl-C. With --json each line is a JSON object of its own.`,
		Example: "  drover machine logs 3d8d9c2b7e0a15\n  drover machine logs 3d8d9c2b7e0a15 -f --tail 10",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if tail < 1 || tail > 1000 {
				return usage(cmd, "--tail is %d; expected 1 to 1000", tail)
			}
			cl, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			show := func(line drover.LogLine) error { return c.printLogLine(line, times) }
			query := client.LogsQuery{Tail: tail}
			if follow {
				err := cl.FollowLogs(cmd.Context(), m.App, m.ID, query, show)
				if drover.Is(err, drover.Canceled) {
					return &exitError{code: exitCode(drover.Canceled)} // Ctrl-C is how it ends; there is nothing to report
				}
				return err
			}
			logs, err := cl.Logs(cmd.Context(), m.App, m.ID, query)
			if err != nil {
				return err
			}
			for _, line := range logs.Lines {
				if err := show(line); err != nil {
					return err
				}
			}
			return nil
		},
	}
	addApp(cmd, &app)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as lines are written")
	cmd.Flags().IntVarP(&tail, "tail", "n", 100, "start so many lines before the end, 1000 at most")
	cmd.Flags().BoolVarP(&times, "time", "t", false, "print the time and the stream of each line")
	return cmd
}

func (c *cli) printLogLine(line drover.LogLine, times bool) error {
	if c.json {
		return c.encode(line, "")
	}
	if times {
		return c.print("%s %s %s\n", line.At.UTC().Format("2006-01-02T15:04:05.000Z"), line.Stream, line.Text)
	}
	return c.print("%s\n", line.Text)
}
