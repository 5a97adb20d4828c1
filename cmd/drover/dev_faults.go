package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/dev"
	"drover/fleet"
	"drover/host"
	"drover/network"
	"drover/volume"
)

// devAction makes a command that does something to one host and says what it did.
func (c *cli) devAction(cmd *cobra.Command, do func(ctx context.Context, f *dev.Fleet, id drover.HostID) (did string, err error)) *cobra.Command {
	cmd.Args = exactly("HOST")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := dev.Open(c.devDir())
		if err != nil {
			return err
		}
		did, err := do(cmd.Context(), f, drover.HostID(args[0]))
		if err != nil {
			return err
		}
		return c.didTo(args[0], did)
	}
	return cmd
}

// didTo says what was done to a host.
func (c *cli) didTo(host, did string) error {
	if c.json {
		return c.printJSON(map[string]string{"host": host, "did": did})
	}
	return c.print("%s: %s\n", host, did)
}

func newDevKillCommand(c *cli) *cobra.Command {
	var service, machine string
	cmd := c.devAction(&cobra.Command{
		Use:   "kill HOST",
		Short: "Cut a host's power, or kill one of its services or VMs",
		Long: `Every process of the host is killed at once, its run state is gone, its disk stays: a power cut. The host stays off until
'drover dev start'. With --service only that process is killed; the host starts it again by itself. With --machine only the VM of
that machine is killed.`,
		Example: "  drover dev kill h1\n  drover dev kill h1 --service worker\n  drover dev kill h1 --machine 3d8d9c2b7e0a15",
	}, func(ctx context.Context, f *dev.Fleet, id drover.HostID) (string, error) {
		switch {
		case service != "" && machine != "":
			return "", drover.Errorf(drover.Invalid, "--service and --machine are two different things to kill")
		case service != "":
			return service + " was killed", f.KillService(ctx, id, service)
		case machine != "":
			return "the VM of " + machine + " was killed", f.KillVM(ctx, id, drover.MachineID(machine))
		}
		return "without power", f.Kill(ctx, id)
	})
	cmd.Flags().StringVar(&service, "service", "", "kill only this service: storage, mesh, worker or control")
	cmd.Flags().StringVar(&machine, "machine", "", "kill only the VM of this machine")
	return cmd
}

func newDevStartCommand(c *cli) *cobra.Command {
	return c.devAction(&cobra.Command{
		Use:     "start HOST",
		Short:   "Give a host power again",
		Long:    "Starts a host that was killed or stopped. What it should run, it runs again by itself.",
		Example: "  drover dev start h1",
	}, func(ctx context.Context, f *dev.Fleet, id drover.HostID) (string, error) {
		return "started", f.Start(ctx, id)
	})
}

func newDevStopCommand(c *cli) *cobra.Command {
	return c.devAction(&cobra.Command{
		Use:     "stop HOST",
		Short:   "Shut a host down in order",
		Long:    "Stops the host's services, then cuts its power. Machines on it are not stopped first: they lose their power with it.",
		Example: "  drover dev stop h1",
	}, func(ctx context.Context, f *dev.Fleet, id drover.HostID) (string, error) {
		return "shut down", f.Stop(ctx, id)
	})
}

func newDevCutCommand(c *cli) *cobra.Command {
	var only string
	var from []string
	cmd := c.devAction(&cobra.Command{
		Use:   "cut HOST",
		Short: "Cut a host's network link, in one or both directions, or from some hosts only",
		Long: `Drops everything that the host sends and receives, without a sign to it, until 'drover dev heal'. With --only it is one direction, as the
host sees it. With --from the host loses only what goes to and comes from these hosts. It replaces what was done to the link before.`,
		Example: "  drover dev cut h1\n  drover dev cut h1 --only out\n  drover dev cut h1 --from h2,c1",
	}, func(ctx context.Context, f *dev.Fleet, id drover.HostID) (string, error) {
		link := dev.Link{CutIn: only != "out", CutOut: only != "in"}
		if only != "" && only != "in" && only != "out" {
			return "", drover.Errorf(drover.Invalid, "--only %q is not in or out", only)
		}
		if len(from) > 0 {
			if only != "" {
				return "", drover.Errorf(drover.Invalid, "--only and --from do not go together: a cut from other hosts is one in both directions")
			}
			link = dev.Link{}
			for _, other := range from {
				link.Without = append(link.Without, drover.HostID(other))
			}
		}
		return "link " + link.String(), f.SetLink(ctx, id, link)
	})
	cmd.Flags().StringSliceVar(&from, "from", nil, "cut it from these hosts only")
	cmd.Flags().StringVar(&only, "only", "", "cut one direction only, as the host sees it: in or out")
	return cmd
}

func newDevHealCommand(c *cli) *cobra.Command {
	return c.devAction(&cobra.Command{
		Use:     "heal HOST",
		Short:   "Make a host's link whole again: neither cut nor slow",
		Example: "  drover dev heal h1",
	}, func(ctx context.Context, f *dev.Fleet, id drover.HostID) (string, error) {
		return "link ok", f.Heal(ctx, id)
	})
}

func newDevSlowCommand(c *cli) *cobra.Command {
	var rate string
	var delay time.Duration
	cmd := c.devAction(&cobra.Command{
		Use:   "slow HOST",
		Short: "Slow a host's link down",
		Long: `Bounds the host's link to a rate (bytes per second, in each direction) and adds a delay (in each direction, so that a round trip
takes twice as long). It replaces what was done to the link before; 'drover dev heal' ends it.`,
		Example: "  drover dev slow h1 --rate 10MiB --delay 20ms",
	}, func(ctx context.Context, f *dev.Fleet, id drover.HostID) (string, error) {
		link := dev.Link{Delay: delay}
		if rate != "" {
			var err error
			if link.Rate, err = parseSize(strings.TrimSuffix(rate, "/s"), 1); err != nil {
				return "", err
			}
		}
		if rate == "" && delay == 0 {
			return "", drover.Errorf(drover.Invalid, "neither --rate nor --delay is given").WithHint("'drover dev heal' makes the link whole")
		}
		return "link " + link.String(), f.SetLink(ctx, id, link)
	})
	cmd.Flags().StringVar(&rate, "rate", "", "bytes per second in each direction, such as 10MiB")
	cmd.Flags().DurationVar(&delay, "delay", 0, "delay in each direction, such as 20ms")
	return cmd
}

func newDevFaultCommand(c *cli) *cobra.Command {
	var kind string
	var list, release bool
	cmd := &cobra.Command{
		Use:   "fault [HOST POINT]",
		Short: "Make a host crash, or wait, the next time it comes by a named point",
		Long: `The next time one of the host's processes comes by the point, it is killed (--kind process), the host's power is cut (--kind
host), or the process waits there until --release, at most two minutes (--kind hold): then something else can be done at just that moment.
A fault strikes once; --release disarms one that has not struck. The points are those of the agent (host.), of the storage daemon (volume.), of the mesh (network.) and of the control side (fleet.):
--list shows them.`,
		Example: "  drover dev fault h1 host.freeze.after\n  drover dev fault c1 fleet.move.switch.before --kind host\n" +
			"  drover dev fault h1 host.freeze.after --kind hold\n  drover dev fault h1 host.freeze.after --release",
		Args: func(cmd *cobra.Command, args []string) error {
			if list && len(args) == 0 {
				return nil
			}
			return exactly("HOST", "POINT")(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			points := faultPoints()
			if list {
				if c.json {
					return c.printJSON(points)
				}
				return c.print("%s\n", strings.Join(points, "\n"))
			}
			if !slices.Contains(points, args[1]) {
				return drover.Errorf(drover.Invalid, "no process comes by a point %q", args[1]).WithHint("'drover dev fault --list' shows the points")
			}
			f, err := dev.Open(c.devDir())
			if err != nil {
				return err
			}
			if release {
				if err := f.Release(drover.HostID(args[0]), args[1]); err != nil {
					return err
				}
				return c.didTo(args[0], args[1]+" is released")
			}
			if err := f.Fault(drover.HostID(args[0]), args[1], kind); err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"host": args[0], "point": args[1], "kind": kind})
			}
			if kind == "hold" {
				return c.print("%s: will wait at %s until --release\n", args[0], args[1])
			}
			return c.print("%s: will crash at %s (%s)\n", args[0], args[1], kind)
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "process", "process, host or hold")
	cmd.Flags().BoolVar(&release, "release", false, "disarm the point, and let the process that is held there go on")
	cmd.Flags().BoolVar(&list, "list", false, "list the points")
	return cmd
}

// faultPoints lists the points of all processes.
func faultPoints() []string {
	return slices.Concat(fleet.FaultPoints(), fleet.AbortFaultPoints(), fleet.VolumeFaultPoints(), fleet.TallyFaultPoints(), fleet.TraceFaultPoints(), host.FaultPoints(), volume.FaultPoints(), network.FaultPoints())
}
