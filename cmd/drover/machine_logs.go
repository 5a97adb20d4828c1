package main

import (
	"github.com/spf13/cobra"

	"drover"
	"drover/client"
)

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
