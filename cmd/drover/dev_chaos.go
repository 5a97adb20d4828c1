package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"drover"
	"drover/demo/image"
	"drover/dev/chaos"
	"drover/internal/testkit"
)

// chaosFillMiB is how much checksummed data each machine of a run has beside its records.
const chaosFillMiB = 8

// chaosMoves are the ways in which a run moves machines, one of them at random each time.
var chaosMoves = []string{"", "--switch=early", "--switch=late", "--live-or-cold"}

func newDevChaosCommand(c *cli) *cobra.Command {
	var faults, writer string
	o := chaos.Options{MoveFlags: chaosMoves, Progress: c.stderr}
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Break a fleet at random for a time, and check that it keeps its promises",
		Long: `Makes a fleet of its own, on which machines write numbered, checksummed records that are acknowledged outside, and for so many seconds
kills processes and VMs, cuts power and links, slows links down, fills disks and sets clocks wrong, while machines are moved and hosts
are drained. Then everything is mended, must come to rest, and is compared: acknowledged records that are lost or changed, machines
that ran in two places, and whatever is left over.

The plan is made from --seed and the other options alone, and is shown with --plan: a run that failed can be run again. It ends with one line
of JSON on standard output and with an exit code other than 0 if anything was lost, corrupt, ran twice or was left over.`,
		Example: "  drover dev chaos --seconds 60\n  drover dev chaos --seed 7 --faults kill,power --machines 2\n  drover dev chaos --seed 7 --plan",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("seed") {
				o.Seed = uint64(time.Now().UnixNano()) % 1e9
			}
			o.Points = faultPoints()
			var err error
			if o.Faults, err = chaos.ParseFaults(faults); err != nil {
				return err
			}
			if faults == "all" && os.Geteuid() != 0 {
				// Disks of their own, which can be filled up and hang, are had by root only; naming the fault asks for an error.
				o.Faults = slices.DeleteFunc(o.Faults, func(f chaos.Fault) bool { return f == chaos.Full || f == chaos.Hang })
			}
			if plan, err := cmd.Flags().GetBool("plan"); err != nil || plan {
				return errors.Join(err, c.printChaosPlan(o))
			}
			return c.runChaos(cmd.Context(), o, writer)
		},
	}
	flags := cmd.Flags()
	flags.Uint64Var(&o.Seed, "seed", 0, "what the plan is made from (default: another one each time)")
	flags.IntVar(&o.Seconds, "seconds", 60, "how long faults go on")
	flags.IntVar(&o.Hosts, "hosts", 3, "how many worker hosts")
	flags.IntVar(&o.Machines, "machines", 3, "how many machines")
	flags.StringVar(&faults, "faults", "all", "kinds of faults: "+strings.Trim(fmt.Sprint(chaos.Faults()), "[]")+"; all, or none")
	flags.DurationVar(&o.Pace, "pace", 6*time.Second, "mean time between two faults, and between two moves")
	flags.BoolVar(&o.Keep, "keep", false, "leave the fleet running at the end, to be looked at")
	flags.StringVar(&writer, "writer", "", "the program that writes the records (default: writer beside drover)")
	flags.Bool("plan", false, "print the plan and do nothing")
	return cmd
}

func (c *cli) printChaosPlan(o chaos.Options) error {
	events, err := chaos.CheckedPlan(o)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(events)
	}
	for _, e := range events {
		if err := c.print("%8.1f s  %s\n", e.At.Seconds(), e); err != nil {
			return err
		}
	}
	return nil
}

// runChaos makes a directory for the run and removes it at the end, unless the fleet is to be kept.
func (c *cli) runChaos(ctx context.Context, o chaos.Options, writer string) (err error) {
	path, err := exe()
	if err != nil {
		return err
	}
	if writer == "" {
		writer = filepath.Join(filepath.Dir(path), "writer")
	}
	if _, err := os.Stat(writer); err != nil {
		return drover.Errorf(drover.Precondition, "cannot find the program that writes the records: %w", err).
			WithHint("'make build' makes bin/writer beside bin/drover; --writer says where it is")
	}
	dir, err := os.MkdirTemp("", "drover-chaos-")
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot make a directory for the run: %w", err)
	}
	o.CLI, o.Image = testkit.CLI{Bin: path, Dir: filepath.Join(dir, "f")}, filepath.Join(dir, "image")
	defer func() {
		if _, left := os.Stat(o.CLI.Dir); left == nil {
			fmt.Fprintf(c.stderr, "the fleet is kept: look at it in %s, and end it with drover dev down --purge --dir %s\n", dir, o.CLI.Dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	err = image.WriteLayout(o.Image, image.Spec{
		Programs: map[string]string{"writer": writer},
		Config:   v1.Config{Entrypoint: []string{"/writer"}, Cmd: []string{"run", "-fill", fmt.Sprint(chaosFillMiB)}, Env: []string{"PATH=/bin"}},
	})
	if err != nil {
		return drover.Errorf(drover.Precondition, "cannot make the machines' image: %w", err).WithHint("script/bootstrap installs busybox-static")
	}
	report, err := chaos.Run(ctx, o)
	if perr := c.encode(report, ""); perr != nil {
		return errors.Join(err, perr)
	}
	if err != nil {
		return err
	}
	return report.Verdict()
}
