package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

// configFlags are the flags that make or change a machine's config.
type configFlags struct {
	file, image, memory   string
	cpus                  int
	cpuKind, dedication   string
	env, metadata, volume []string
	restart               string
	transport             string
	cmd, entrypoint       []string
	stopSignal            string
	stopTimeout           time.Duration
}

func (f *configFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.file, "config", "", "file with the config as JSON (- for stdin); flags change what it says")
	flags.StringVar(&f.image, "image", "", "image: from a registry, or a layout folder or tarball on the hosts")
	flags.StringVar(&f.memory, "memory", "", "memory, such as 512MB or 1GiB; a bare number is in MB (default 256MB)")
	flags.IntVar(&f.cpus, "cpus", 0, "number of CPUs (default 1)")
	f.addKind(cmd)
	flags.StringVar(&f.transport, "disk-transport", "", "how disks are attached: nbd, vhost-user-blk or auto (default: as the host is set)")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "environment variable as NAME=VALUE; may be repeated")
	flags.StringArrayVar(&f.metadata, "metadata", nil, "metadata as NAME=VALUE; may be repeated")
	flags.StringArrayVarP(&f.volume, "volume", "v", nil, "volume as VOLUME:/path, by its ID or its name; may be repeated")
	flags.StringVar(&f.restart, "restart", "", "when the main process ends by itself: no, on-failure or always (default on-failure)")
	flags.StringArrayVar(&f.cmd, "cmd", nil, "argument in place of the image's command; may be repeated; or write them after --")
	flags.StringArrayVar(&f.entrypoint, "entrypoint", nil, "argument in place of the image's entrypoint; may be repeated")
	flags.StringVar(&f.stopSignal, "stop-signal", "", "signal that asks the main process to stop (default SIGINT)")
	flags.DurationVar(&f.stopTimeout, "stop-timeout", 0, "how long it gets before it is killed (default 5s)")
}

// imageAndCommand separates "IMAGE -- CMD ARGS".
func imageAndCommand(cmd *cobra.Command, args []string) (image string, command []string, err error) {
	before := args
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		before, command = args[:dash], args[dash:]
	}
	if len(before) > 1 {
		return "", nil, usage(cmd, "unexpected argument %q", before[1]).WithHint("write the command after --: '%s %s -- %s'",
			cmd.CommandPath(), before[0], strings.Join(before[1:], " "))
	}
	if len(before) == 1 {
		image = before[0]
	}
	return image, command, nil
}

// apply changes the config as the flags say.
func (f *configFlags) apply(cmd *cobra.Command, config *drover.MachineConfig) error {
	set := cmd.Flags().Changed
	if set("memory") {
		size, err := parseSize(f.memory, drover.MiB)
		if err != nil {
			return drover.AsError(err).WithField("config.guest.memory_mb")
		}
		config.Guest.MemoryMB = int((size + drover.MiB - 1) / drover.MiB)
	}
	if set("cpus") {
		if f.cpus < 1 {
			return usage(cmd, "--cpus is %d; expected 1 or more", f.cpus)
		}
		config.Guest.CPUs = f.cpus
	}
	if set("cpu-kind") {
		config.Guest.CPUKind = f.cpuKind
	}
	if set("host-dedication-id") {
		config.Guest.HostDedicationID = f.dedication
	}
	if set("disk-transport") {
		config.Guest.DiskTransport = drover.Transport(f.transport)
	}
	if set("image") {
		config.Image = f.image
	}
	if err := hostImage(&config.Image); err != nil {
		return err
	}
	if set("restart") {
		config.Restart.Policy = drover.RestartPolicy(f.restart)
	}
	if set("cmd") {
		config.Init.Cmd = f.cmd
	}
	if set("entrypoint") {
		config.Init.Entrypoint = f.entrypoint
	}
	if set("stop-signal") {
		config.StopConfig.Signal = f.stopSignal
	}
	if set("stop-timeout") {
		config.StopConfig.Timeout = drover.Duration(f.stopTimeout)
	}
	if err := addPairs(cmd, "env", f.env, &config.Env); err != nil {
		return err
	}
	return addPairs(cmd, "metadata", f.metadata, &config.Metadata)
}

// hostImage makes an image that is named by a path one that hosts find: a path means this directory, which they do not know, and they are told whether it
// is a layout folder or a tarball.
func hostImage(image *string) error {
	kind, path, named := strings.Cut(*image, ":")
	if !named || (kind != "oci" && kind != "tar") {
		kind, path = "", *image
	}
	beside := strings.HasPrefix(path, "./") || strings.HasPrefix(path, "../")
	if !beside && (kind != "" || !strings.HasPrefix(path, "/")) {
		return nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return drover.Errorf(drover.Invalid, "cannot find the image: %w", err)
	}
	if kind == "" {
		kind = "oci"
		if info, err := os.Stat(path); strings.HasSuffix(path, ".tar") || err == nil && info.Mode().IsRegular() {
			kind = "tar"
		}
	}
	*image = kind + ":" + path
	return nil
}

func addPairs(cmd *cobra.Command, flag string, pairs []string, to *map[string]string) error {
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return usage(cmd, "--%s is %q; expected NAME=VALUE", flag, pair)
		}
		if *to == nil {
			*to = map[string]string{}
		}
		(*to)[name] = value
	}
	return nil
}

// mounts adds the volumes of --volume, found by their ID or name in the app.
func (f *configFlags) mounts(ctx context.Context, cmd *cobra.Command, client *client.Client, app drover.AppName, config *drover.MachineConfig) error {
	for _, text := range f.volume {
		name, path, ok := strings.Cut(text, ":")
		if !ok || name == "" || path == "" {
			return usage(cmd, "--volume is %q; expected VOLUME:/path", text)
		}
		v, err := client.FindVolume(ctx, app, name)
		if err != nil {
			return err
		}
		config.Mounts = append(config.Mounts, drover.Mount{Volume: v.ID, Path: path, Name: v.Name})
	}
	return nil
}

// readConfig reads the file of --config.
func (c *cli) readConfig(path string) (drover.MachineConfig, error) {
	var config drover.MachineConfig
	if path == "" {
		return config, nil
	}
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(c.stdin)
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return config, drover.Errorf(drover.Invalid, "cannot read the config: %w", err)
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return config, drover.Errorf(drover.Invalid, "cannot read the config in %s: %w", path, err)
	}
	return config, nil
}

func newMachineCreateCommand(c *cli) *cobra.Command {
	var flags configFlags
	var req apiv1.CreateMachineRequest
	var app string
	var follow followFlags
	cmd := &cobra.Command{
		Use:     "create [IMAGE] [-- CMD ARG...]",
		Aliases: []string{"run"},
		Short:   "Create a machine, start it, and wait until it runs",
		Long: `Create makes a machine and starts it, and waits until its main process runs.
Ctrl-C ends the waiting, not the machine. What is not given has a default: 1
CPU, 256 MB, the image's own command, a name made up, a host chosen by the
fleet.`,
		Example: `  drover machine create debian:12 --app ledger -- sleep infinity
  drover machine create ./image.tar --app ledger --memory 512MB --volume data:/data
  drover machine create --app ledger --config machine.json --skip-launch`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			if req.Config, err = c.readConfig(flags.file); err != nil {
				return err
			}
			if err := c.fill(cmd, client, drover.AppName(app), &flags, args, &req.Config); err != nil {
				return err
			}
			m, err := client.CreateMachine(cmd.Context(), drover.AppName(app), req)
			if err != nil {
				return err
			}
			if follow.detach || req.SkipLaunch {
				return c.printID(m.ID, m)
			}
			m, err = c.followStart(cmd.Context(), client, m, follow.timeout)
			if err != nil {
				return err
			}
			return c.printMachine(m, "machine %s (%s) is %s on host %s", m.ID, m.Name, m.State, m.Host)
		},
	}
	flags.add(cmd)
	follow.add(cmd)
	c.needApp(cmd, &app, "app that the machine is to belong to")
	cmd.Flags().StringVar(&req.Name, "name", "", "name of the machine (default: made up)")
	cmd.Flags().StringVarP(&req.Region, "region", "r", "", "region to run in, or several with commas between them, in the order in which they are tried (default: any)")
	cmd.Flags().StringVar(&req.Host, "host", "", "host to run on (default: chosen by the fleet)")
	cmd.Flags().BoolVar(&req.SkipLaunch, "skip-launch", false, "create the machine without starting it")
	return cmd
}

// fill applies image, command, flags and volumes to the config.
func (c *cli) fill(cmd *cobra.Command, client *client.Client, app drover.AppName, flags *configFlags, args []string, config *drover.MachineConfig) error {
	image, command, err := imageAndCommand(cmd, args)
	if err != nil {
		return err
	}
	if image != "" && flags.image != "" {
		return usage(cmd, "the image is given twice, as %q and as %q", image, flags.image)
	}
	if len(command) > 0 && len(flags.cmd) > 0 {
		return usage(cmd, "the command is given twice, by --cmd and after --")
	}
	if image != "" {
		config.Image = image
	}
	if len(command) > 0 {
		config.Init.Cmd = command
	}
	if err := flags.apply(cmd, config); err != nil {
		return err
	}
	if config.Image == "" {
		return usage(cmd, "the image is missing")
	}
	return flags.mounts(cmd.Context(), cmd, client, app, config)
}

func newMachineUpdateCommand(c *cli) *cobra.Command {
	var flags configFlags
	var app string
	var skip bool
	var follow followFlags
	cmd := &cobra.Command{
		Use:   "update ID [-- CMD ARG...]",
		Short: "Change a machine's config, which restarts it",
		Long: `Update reads the machine's config, changes what the flags say, and gives it
back; the machine is stopped and started with it. If somebody else changed the
config meanwhile, nothing is done. With --config the file replaces the whole
config first.`,
		Example: `  drover machine update 3d8d9c2b7e0a15 --memory 1GiB
  drover machine update 3d8d9c2b7e0a15 --image debian:13 --env MODE=fast -- serve`,
		Args: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				args = args[:dash]
			}
			return exactly("ID")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			config, err := c.changed(cmd, client, m, &flags, args)
			if err != nil {
				return err
			}
			updated, err := client.UpdateMachine(cmd.Context(), m.App, m.ID, apiv1.UpdateMachineRequest{Config: config,
				CurrentVersion: string(m.InstanceID), SkipLaunch: skip})
			if err != nil {
				return err
			}
			if follow.detach || skip {
				return c.printID(updated.ID, updated)
			}
			updated, err = c.followUpdate(cmd.Context(), client, m, updated, follow.timeout)
			if err != nil {
				return err
			}
			return c.printMachine(updated, "machine %s is %s with its new config", updated.ID, updated.State)
		},
	}
	flags.add(cmd)
	follow.add(cmd)
	addApp(cmd, &app)
	cmd.Flags().BoolVar(&skip, "skip-launch", false, "do not start the machine if it is stopped")
	return cmd
}

// changed returns the machine's config with what the file, the flags and the arguments say.
func (c *cli) changed(cmd *cobra.Command, client *client.Client, m apiv1.Machine, flags *configFlags, args []string) (drover.MachineConfig, error) {
	config := m.Config
	if flags.file != "" {
		var err error
		if config, err = c.readConfig(flags.file); err != nil {
			return config, err
		}
	}
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		config.Init.Cmd = args[dash:]
	}
	if err := flags.apply(cmd, &config); err != nil {
		return config, err
	}
	return config, flags.mounts(cmd.Context(), cmd, client, m.App, &config)
}
