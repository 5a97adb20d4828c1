package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/dev"
)

func newDevCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "dev",
		Short: "A whole fleet on this machine, to try, develop and test",
		Long: `Runs a fleet on one Linux machine. Each host is a process tree of its own with its own data directory, address and certificates, in
namespaces of its own where that is allowed (root, or a user namespace), else on loopback addresses. Nothing in it is a mock, and
nothing is changed outside of its directory (--dir or DROVER_DEV_DIR, default ~/.drover/dev).

Faults are part of it: cut a host's power, cut its link, slow it down, fill its disk, let it hang, set its clock wrong, kill a process at a named point.`,
	},
		newDevUpCommand(c), newDevDownCommand(c), newDevStatusCommand(c), newDevLogsCommand(c), newDevExecCommand(c),
		newDevKillCommand(c), newDevStartCommand(c), newDevStopCommand(c),
		newDevCutCommand(c), newDevHealCommand(c), newDevSlowCommand(c), newDevFillCommand(c), newDevHangCommand(c), newDevClockCommand(c), newDevFaultCommand(c),
		newDevChaosCommand(c),
		newDevRackCommand(c), newDevHostCommand(c), newDevProbeCommand(c),
	)
}

func newDevUpCommand(c *cli) *cobra.Command {
	config := dev.Config{}
	var regions []string
	var mode, disk string
	var port int
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring the fleet up",
		Long: `Starts what does not run yet, and returns when the API answers and every worker has registered. The first time it makes the fleet:
workers h1 and h2 in region ams and h3 in region fra, and the control host c1. State survives 'down' and 'up'; hosts that were
killed are started again. More --workers than there are let the fleet grow.`,
		Example: "  drover dev up\n  drover dev up --workers 5 --regions ams,fra,nrt\n  drover dev up --api-port 0 --dir /tmp/fleet",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			config.Dir, config.Mode = c.devDir(), dev.Mode(mode)
			for _, r := range regions {
				config.Regions = append(config.Regions, drover.Region(r))
			}
			if cmd.Flags().Changed("api-port") {
				config.APIPort = &port
			}
			if disk != "" {
				var err error
				if config.Disk, err = parseSize(disk, 1); err != nil {
					return err
				}
			}
			config.Progress = func(text string) { fmt.Fprintln(c.stderr, text) }
			f, err := dev.Up(cmd.Context(), config)
			if err != nil {
				return err
			}
			return c.printDevStatus(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&config.Workers, "workers", 0, "how many worker hosts (default 3, or what there is)")
	flags.StringSliceVar(&regions, "regions", nil, "regions that new workers are dealt out to (default ams,fra)")
	flags.IntVar(&port, "api-port", 0, "port of the API on 127.0.0.1; 0 takes a free one (default 4280, or what it was)")
	flags.StringVar(&mode, "mode", "", "namespaces or loopback (default: namespaces where they are allowed)")
	flags.StringVar(&disk, "disk", "", "give each worker a file system of this size for its data, which 'drover dev fill' can fill (needs root)")
	flags.DurationVar(&config.Grace, "grace", 0, "how long a source keeps its copy after a move (default 1h, or what it was)")
	flags.DurationVar(&config.BootTimeout, "boot-timeout", 0, "how long a machine's boot may take (default 30s, or what it was); more on a machine with little to spare")
	flags.DurationVar(&config.Wait, "wait", time.Minute, "how long to wait until all hosts are ready")
	return cmd
}

func newDevDownCommand(c *cli) *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Shut the fleet down",
		Long: `Ends every process of the fleet, also after some or all of them were killed; nothing is left but the fleet's directory. Data stays:
machines that should run are running again after the next 'up'. With --purge the directory is removed, with all data.`,
		Example: "  drover dev down\n  drover dev down --purge",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := dev.Down(cmd.Context(), c.devDir(), purge); err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]bool{"purged": purge})
			}
			if purge {
				return c.print("the fleet is gone, with its data in %s\n", c.devDir())
			}
			return c.print("the fleet is down; its data is in %s\n", c.devDir())
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove the fleet's directory, with all data")
	return cmd
}

func newDevStatusCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the fleet's hosts, their processes and links",
		Example: "  drover dev status\n  drover dev status --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := dev.Open(c.devDir())
			if err != nil {
				return err
			}
			return c.printDevStatus(cmd.Context(), f)
		},
	}
}

func (c *cli) printDevStatus(ctx context.Context, f *dev.Fleet) error {
	s, err := f.Status(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(s)
	}
	if !s.Up {
		return c.print("the fleet in %s is down; 'drover dev up' brings it up\n", s.Dir)
	}
	t := table{header: []string{"HOST", "REGION", "ROLES", "ADDRESS", "PID", "STATE", "LINK", "SERVICES"}, spare: []string{"ROLES", "PID"}}
	for _, h := range s.Hosts {
		state, link, pid := h.State, h.Link, fmt.Sprint(h.PID)
		if h.Why != "" {
			state += " (" + h.Why + ")"
		}
		if h.PID == 0 {
			pid = ""
		}
		if s.Mode == dev.ModeLoopback {
			link = "loopback"
		}
		t.add(h.ID, h.Region, joined(h.Roles), h.Address, pid, state, link, servicesText(h.Services))
	}
	if err := c.printTable(t, "the fleet has no hosts"); err != nil {
		return err
	}
	answers := "answers"
	if !s.APIAnswers {
		answers = "does not answer"
	}
	if err := c.print("API %s %s; mode %s (%s); data in %s\n", s.API, answers, s.Mode, s.Reason, s.Dir); err != nil {
		return err
	}
	if s.Mode == dev.ModeLoopback {
		return c.print("In loopback mode links cannot be cut or slowed down, and machines have QEMU's user networking.\n")
	}
	return nil
}

func joined(roles []drover.Role) string {
	var words []string
	for _, r := range roles {
		words = append(words, string(r))
	}
	return strings.Join(words, ",")
}

// servicesText shows each service's process, and how often it had to be started again.
func servicesText(services []dev.ServiceStatus) string {
	var words []string
	for _, s := range services {
		text := fmt.Sprintf("%s=%d", s.Name, s.PID)
		if s.PID == 0 {
			text = s.Name + "=dead"
		}
		if s.Restarts > 0 {
			text += fmt.Sprintf("(restarts %d, last %s)", s.Restarts, s.LastExit)
		}
		words = append(words, text)
	}
	return strings.Join(words, " ")
}

func newDevLogsCommand(c *cli) *cobra.Command {
	var lines int
	cmd := &cobra.Command{
		Use:     "logs HOST SERVICE",
		Short:   "Show the end of a service's log: host, storage, worker or control",
		Example: "  drover dev logs h1 worker\n  drover dev logs c1 control --tail 200",
		Args:    exactly("HOST", "SERVICE"),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := dev.Open(c.devDir())
			if err != nil {
				return err
			}
			text, err := f.LogTail(drover.HostID(args[0]), args[1], lines)
			if err != nil {
				return err
			}
			return c.print("%s", text)
		},
	}
	cmd.Flags().IntVar(&lines, "tail", 40, "how many lines")
	return cmd
}

func newDevExecCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "exec HOST -- COMMAND...",
		Short: "Run a command inside a host: with its network, processes and run directory",
		Long: `Runs a command of this machine inside a host, which has its own network, its own process numbers and its own /run. The exit code is
the command's. The command finds DROVER_HOST, DROVER_RUN_DIR, DROVER_DATA_DIR and DROVER_TLS_DIR in its environment.`,
		Example: "  drover dev exec h1 -- ip address\n" +
			"  drover dev exec h1 -- nbdinfo --list nbd+unix:///?socket=/run/drover/nbd.sock",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage(cmd, "HOST and COMMAND are needed")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := dev.Open(c.devDir())
			if err != nil {
				return err
			}
			code, err := f.Exec(cmd.Context(), drover.HostID(args[0]), args[1:], os.Stdin, os.Stdout, os.Stderr)
			if err != nil {
				return err
			}
			if code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
}

// exe is the path of this program, for the processes of a fleet.
func exe() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", drover.Errorf(drover.Internal, "cannot find the drover program: %w", err)
	}
	return filepath.Clean(path), nil
}

// newDevRackCommand, newDevHostCommand and newDevProbeCommand are the processes of a fleet. People do not type them.
func newDevRackCommand(c *cli) *cobra.Command {
	opts := dev.RackOptions{}
	cmd := &cobra.Command{Use: "rack", Hidden: true, Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) (err error) {
		if opts.Exe, err = exe(); err != nil {
			return err
		}
		if opts.Log, err = newLogger(c.stderr, "text"); err != nil {
			return err
		}
		opts.Dir = c.devDir()
		return dev.RunRack(cmd.Context(), opts)
	}}
	cmd.Flags().StringVar((*string)(&opts.Mode), "mode", "", "")
	cmd.Flags().StringVar(&opts.Reason, "reason", "", "")
	return cmd
}

func newDevHostCommand(c *cli) *cobra.Command {
	opts := dev.HostOptions{}
	cmd := &cobra.Command{Use: "host HOST", Hidden: true, Args: exactly("HOST"), RunE: func(cmd *cobra.Command, args []string) (err error) {
		if opts.Exe, err = exe(); err != nil {
			return err
		}
		if opts.Log, err = newLogger(c.stderr, "text"); err != nil {
			return err
		}
		opts.Dir, opts.ID = c.devDir(), drover.HostID(args[0])
		return dev.RunHost(cmd.Context(), opts)
	}}
	cmd.Flags().StringVar((*string)(&opts.Mode), "mode", "", "")
	return cmd
}

func newDevProbeCommand(*cli) *cobra.Command {
	return &cobra.Command{Use: "probe PART", Hidden: true, Args: exactly("PART"), RunE: func(cmd *cobra.Command, args []string) error {
		path, err := exe()
		if err != nil {
			return err
		}
		return dev.RunProbe(cmd.Context(), path, args[0])
	}}
}
