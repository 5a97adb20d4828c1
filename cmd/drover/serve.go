package main

import (
	"context"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"drover"
	"drover/internal/fault"
	"drover/internal/hostconf"
)

func newServeCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "serve",
		Short: "The processes of a host: storage, mesh, worker, control",
		Long: `Runs one of a host's processes until it gets SIGTERM. A worker host runs three of them: storage, which serves volumes, mesh, which
joins its machines with those of other hosts, and worker, the agent that runs machines. A control host runs control: the fleet's state, placement, migrations and the API. Each may be killed
and started again at any time; machines run on.

What the host is, is in its configuration file, which all its processes read. 'drover dev up' writes such files
(~/.drover/dev/hosts/*/host.json): they are good examples.`,
	},
		newServePartCommand(c, "storage", "Serve this host's volumes", serveStorage),
		newServePartCommand(c, "mesh", "Carry packets between this host's machines and others", serveMesh),
		newServePartCommand(c, "worker", "Run this host's machines", serveWorker),
		newServePartCommand(c, "control", "Run the fleet's control side and its API", serveControl),
	)
}

// process is what every process of a host starts with.
type process struct {
	conf   *hostconf.Config
	log    *slog.Logger
	faults *fault.Points
	getenv func(string) string
}

// newServePartCommand makes the command of one of a host's processes.
func newServePartCommand(c *cli, name, short string, serve func(ctx context.Context, p process) error) *cobra.Command {
	var config, format string
	cmd := &cobra.Command{
		Use:     name + " --config FILE",
		Short:   short,
		Example: "  drover serve " + name + " --config /etc/drover/host.json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(c.stderr, format)
			if err != nil {
				return usage(cmd, "%w", err)
			}
			if config == "" {
				return usage(cmd, "--config is missing")
			}
			conf, err := hostconf.Load(config)
			if err != nil {
				return err
			}
			log = log.With("host", conf.ID)
			log.Info("starting", "process", name, "version", version())
			err = serve(cmd.Context(), process{conf: conf, log: log, faults: fault.FromEnv(c.getenv), getenv: c.getenv})
			if cmd.Context().Err() == nil {
				return err
			}
			// It was asked to end; what that cut short is not a failure of the process.
			log.Info("stopped", "process", name, "err", err)
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the host's configuration file (required)")
	cmd.Flags().StringVar(&format, "log-format", "text", "text or json")
	return cmd
}

// newLogger makes the log of a process that runs for long.
func newLogger(w io.Writer, format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	}
	return nil, drover.Errorf(drover.Invalid, "--log-format %q is not text or json", format)
}
