package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

func newMachineCommand(c *cli) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "machine",
		Short: "Machines: VMs that run images",
		Long: `A machine is a small virtual machine that runs an OCI image, with volumes if it
needs them. It keeps its ID, its address and its volumes for life, wherever it
runs. Machines are named by their ID, or by their name where only one has it.`,
	},
		newMachineCreateCommand(c), newMachineListCommand(c), newMachineShowCommand(c), newMachineUpdateCommand(c),
		newMachineStartCommand(c), newMachineStopCommand(c), newMachineSuspendCommand(c), newMachineRestartCommand(c), newMachineDestroyCommand(c),
		newMachineWaitCommand(c), newMachineExecCommand(c), newMachineSignalCommand(c), newMachineLogsCommand(c),
		newMachineEventsCommand(c), newMachineMoveCommand(c), newMachineCheckMoveCommand(c), newMachineLabelCommand(c),
		newMachineLeaseCommand(c), newMachineCordonCommand(c, true), newMachineCordonCommand(c, false), newMachineVersionsCommand(c), newMachinePsCommand(c),
		newMachinePlaceCommand(c))
	cmd.PersistentFlags().StringVar(&c.nonce, "nonce", "", "nonce of the lease with which machines are changed")
	return cmd
}

// addApp adds the flag --app, which narrows where a machine or a volume is looked for.
func addApp(cmd *cobra.Command, app *string) {
	cmd.Flags().StringVarP(app, "app", "a", "", "app that it belongs to (default: look in every app)")
}

// machineOf connects and finds the machine that an argument names.
func (c *cli) machineOf(ctx context.Context, app, idOrName string) (*client.Client, apiv1.Machine, error) {
	client, err := c.connect()
	if err != nil {
		return nil, apiv1.Machine{}, err
	}
	m, err := client.FindMachine(ctx, drover.AppName(app), idOrName)
	return client, m, err
}

// printMachine prints the machine as JSON, or the sentence.
func (c *cli) printMachine(m apiv1.Machine, format string, args ...any) error {
	if c.json {
		return c.printJSON(m)
	}
	return c.print(format+"\n", args...)
}

// printID prints the ID alone, which is what --detach leaves; with --json the whole thing.
func (c *cli) printID(id any, thing any) error {
	if c.json {
		return c.printJSON(thing)
	}
	return c.print("%s\n", id)
}

func newMachineListCommand(c *cli) *cobra.Command {
	var app string
	var filter listFlags
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List machines",
		Example: "  drover machine list\n  drover machine list --app ledger --state started --metadata role=web --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			apps, err := c.appsOr(cmd.Context(), client, app)
			if err != nil {
				return err
			}
			narrow, err := filter.read(cmd)
			if err != nil {
				return err
			}
			machines := []apiv1.Machine{}
			for _, app := range apps {
				more, err := client.ListMachines(cmd.Context(), app, narrow)
				if err != nil {
					return err
				}
				machines = append(machines, more...)
			}
			if c.json {
				return c.printJSON(machines)
			}
			return c.printTable(c.machineTable(machines), "No machines. 'drover machine create IMAGE --app NAME' makes one.")
		},
	}
	addApp(cmd, &app)
	filter.add(cmd)
	return cmd
}

// appsOr returns the one app, or every app.
func (c *cli) appsOr(ctx context.Context, client *client.Client, app string) ([]drover.AppName, error) {
	if app != "" {
		return []drover.AppName{drover.AppName(app)}, nil
	}
	list, err := client.Apps(ctx, "")
	var apps []drover.AppName
	for _, a := range list {
		apps = append(apps, a.Name)
	}
	return apps, err
}

func (c *cli) machineTable(machines []apiv1.Machine) table {
	t := table{header: []string{"ID", "NAME", "APP", "STATE", "HOST", "REGION", "IMAGE", "AGE"}, spare: []string{"REGION"}}
	for _, m := range machines {
		t.add(m.ID, m.Name, m.App, c.stateText(m), hostText(m), m.Region, m.Config.Image, c.age(m.CreatedAt))
	}
	return t
}

// stateText is the state, and how old it may be when the host does not answer.
func (c *cli) stateText(m apiv1.Machine) string {
	switch {
	case m.HostStatus != drover.HostOK && m.HostSeenAt.IsZero():
		return fmt.Sprintf("%s? (host %s)", m.State, m.HostStatus)
	case m.HostStatus != drover.HostOK:
		return fmt.Sprintf("%s? (host %s for %s)", m.State, m.HostStatus, c.age(m.HostSeenAt))
	}
	if m.Cordoned {
		return string(m.State) + ", cordoned"
	}
	return string(m.State)
}

// hostText is the host, and where the machine is on its way to.
func hostText(m apiv1.Machine) string {
	if m.Migration == nil || m.Migration.Target == m.Host {
		return string(m.Host)
	}
	return fmt.Sprintf("%s -> %s", m.Host, m.Migration.Target)
}

func newMachineShowCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "show ID",
		Aliases: []string{"status"},
		Short:   "Show a machine",
		Example: "  drover machine show 3d8d9c2b7e0a15\n  drover machine show 3d8d9c2b7e0a15 --json",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(m)
			}
			return c.printFields(c.machineFields(m)...)
		},
	}
	addApp(cmd, &app)
	return cmd
}

func (c *cli) machineFields(m apiv1.Machine) [][2]string {
	config := m.Config.WithDefaults()
	fields := [][2]string{
		{"ID", string(m.ID)},
		{"Name", m.Name},
		{"App", string(m.App)},
		{"State", c.stateText(m)},
		{"Reason", m.Reason},
		{"Known as of", c.moment(m.HostSeenAt)},
		{"Host", hostText(m)},
		{"Region", string(m.Region)},
		{"Image", config.Image},
		{"Digest", m.ImageRef.Digest},
		{"Size", fmt.Sprintf("%d CPU, %s", config.Guest.CPUs, sizeText(drover.Bytes(config.Guest.MemoryMB)*drover.MiB))},
		{"Command", strings.Join(commandOf(config.Init), " ")},
		{"Address", m.PrivateIP},
		{"Instance", string(m.InstanceID)},
		{"Epoch", fmt.Sprint(m.Epoch)},
		{"Restart", fmt.Sprintf("%s, at most %d in a row; %d so far", config.Restart.Policy, config.Restart.MaxRetries, m.Restarts)},
		{"Created", c.moment(m.CreatedAt)},
		{"Started", c.moment(m.StartedAt)},
		{"Stopped", c.moment(m.StoppedAt)},
	}
	if m.ExitCode != nil {
		fields = append(fields, [2]string{"Exit code", fmt.Sprint(*m.ExitCode)})
	}
	if m.Migration != nil {
		fields = append(fields, [2]string{"Migration", fmt.Sprintf("%s, in phase %s", m.Migration.ID, m.Migration.Phase)})
	}
	for _, mount := range config.Mounts {
		fields = append(fields, [2]string{"Volume", fmt.Sprintf("%s on %s", mount.Volume, mount.Path)})
	}
	for _, check := range m.Checks {
		fields = append(fields, [2]string{"Check " + check.Name, strings.TrimSpace(check.Status + " " + check.Output)})
	}
	const newest = 5
	for _, e := range m.Events[:min(newest, len(m.Events))] {
		fields = append(fields, [2]string{"Event", fmt.Sprintf("%s ago: %s", c.age(e.At()), eventText(e))})
	}
	return fields
}

func commandOf(init drover.Init) []string {
	if len(init.Exec) > 0 {
		return init.Exec
	}
	return append(append([]string{}, init.Entrypoint...), init.Cmd...)
}

func eventText(e apiv1.Event) string {
	text := fmt.Sprintf("%s by %s, then %s", e.Type, e.Source, e.Status)
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

func newMachineEventsCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "events ID",
		Short:   "List what happened to a machine, newest first",
		Example: "  drover machine events 3d8d9c2b7e0a15",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			events, err := client.Events(cmd.Context(), m.App, m.ID)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(events)
			}
			t := table{header: []string{"TIME", "TYPE", "STATE AFTER", "BY", "TEXT"}}
			for _, e := range events {
				t.add(e.At().Format(time.DateTime), e.Type, e.Status, e.Source, e.Text)
			}
			return c.printTable(t, "Nothing happened to the machine yet.")
		},
	}
	addApp(cmd, &app)
	return cmd
}
