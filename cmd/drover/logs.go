package main

import (
	"fmt"
	"hash/fnv"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"drover"
	"drover/client"
)

// machineColors are those that machines are told apart by on a terminal: none is red, which looks like an error.
var machineColors = [...]int{36, 32, 33, 35, 34, 96, 92, 93, 95, 94}

func newLogsCommand(c *cli) *cobra.Command {
	var app string
	var follow, times bool
	var tail int
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Print what the machines of an app wrote, in the order of time",
		Long: `Logs prints the last lines of all machines of an app, merged by time, each with
the machine's name before it. With -f it goes on as lines are written, also of
machines that are made later, over moves and restarts, until Ctrl-C. On a
terminal each machine has its colour; NO_COLOR turns that off. With --json each
line is a JSON object of its own. 'drover machine logs' is for one machine.`,
		Example: "  drover logs -a ledger\n  drover logs -a ledger -f --since 10m",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if tail < 1 || tail > 1000 {
				return usage(cmd, "--tail is %d; expected 1 to 1000", tail)
			}
			if since > 0 && !cmd.Flags().Changed("tail") {
				tail = 1000
			}
			cl, name, err := c.inApp(app)
			if err != nil {
				return err
			}
			from := time.Time{}
			if since > 0 {
				from = c.now().Add(-since)
			}
			p := &logPrinter{cli: c, times: times, colors: c.colors()}
			err = cl.AppLogs(cmd.Context(), name, tail, follow, func(line client.AppLogLine) error {
				if line.At.Before(from) {
					return nil
				}
				return p.print(line)
			})
			if drover.Is(err, drover.Canceled) && follow {
				return &exitError{code: exitCode(drover.Canceled)} // Ctrl-C is how it ends; there is nothing to report
			}
			return err
		},
	}
	addDefaultApp(cmd, &app)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as lines are written")
	cmd.Flags().IntVarP(&tail, "tail", "n", 100, "start so many lines before the end, 1000 at most")
	cmd.Flags().DurationVar(&since, "since", 0, "only lines of this time, such as 10m")
	cmd.Flags().BoolVarP(&times, "time", "t", false, "print the time and the stream of each line")
	return cmd
}

// colors tells whether stdout shows colours, and is allowed to.
func (c *cli) colors() bool {
	f, ok := c.stdout.(*os.File)
	return ok && c.getenv("NO_COLOR") == "" && c.getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// logPrinter prints lines with their machines' names, as wide as the widest so far.
type logPrinter struct {
	*cli
	times, colors bool
	width         int
}

func (p *logPrinter) print(line client.AppLogLine) error {
	if p.json {
		return p.encode(line, "")
	}
	name := line.Name
	if name == "" {
		name = string(line.ID)
	}
	p.width = max(p.width, len(name))
	head := fmt.Sprintf("%-*s |", p.width, name)
	if p.colors {
		hash := fnv.New32a()
		hash.Write([]byte(line.ID))
		head = fmt.Sprintf("\x1b[%dm%s\x1b[0m", machineColors[hash.Sum32()%uint32(len(machineColors))], head)
	}
	if p.times {
		head += fmt.Sprintf(" %s %s", line.At.UTC().Format("2006-01-02T15:04:05.000Z"), line.Stream)
	}
	return p.cli.print("%s %s\n", head, line.Text)
}
