package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
)

func newMachineCordonCommand(c *cli, cordoned bool) *cobra.Command {
	use, short, is := "cordon", "Keep a machine out of what gets traffic; it runs on", "gets no traffic any more"
	if !cordoned {
		use, short, is = "uncordon", "Let a machine have traffic again", "gets traffic again"
	}
	var app string
	cmd := &cobra.Command{
		Use:     use + " ID",
		Short:   short,
		Example: "  drover machine " + use + " 3d8d9c2b7e0a15",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if err := client.CordonMachine(cmd.Context(), m.App, m.ID, cordoned); err != nil {
				return err
			}
			m.Cordoned = cordoned
			return c.printMachine(m, "machine %s %s", m.ID, is)
		},
	}
	addApp(cmd, &app)
	return cmd
}

func newMachineVersionsCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "versions ID",
		Short:   "List the configs that a machine has and had, newest first",
		Example: "  drover machine versions 3d8d9c2b7e0a15\n  drover machine versions 3d8d9c2b7e0a15 --json",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			versions, err := client.MachineVersions(cmd.Context(), m.App, m.ID)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(versions)
			}
			t := table{header: []string{"INSTANCE", "STATUS", "IMAGE", "SIZE", "SINCE"}}
			for _, v := range versions {
				guest := v.UserConfig.WithDefaults().Guest
				t.add(v.InstanceID, v.Status, v.UserConfig.Image, fmt.Sprintf("%d CPU, %s", guest.CPUs, sizeText(drover.Bytes(guest.MemoryMB)*drover.MiB)),
					v.CreatedAt.UTC().Format(time.DateTime))
			}
			return c.printTable(t, "No versions.")
		},
	}
	addApp(cmd, &app)
	return cmd
}

func newMachinePsCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "ps ID",
		Short:   "List the processes of a started machine",
		Example: "  drover machine ps 3d8d9c2b7e0a15",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			processes, err := client.Processes(cmd.Context(), m.App, m.ID)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(processes)
			}
			t := table{header: []string{"PID", "CPU", "MEMORY", "SINCE", "LISTENS", "COMMAND"}}
			for _, p := range processes {
				var sockets []string
				for _, s := range p.ListenSockets {
					sockets = append(sockets, s.Proto+" "+s.Address)
				}
				t.add(p.PID, durationText(time.Duration(p.CPU)*time.Millisecond), sizeText(p.RSS), durationText(time.Duration(p.RTime)*time.Second),
					strings.Join(sockets, ", "), p.Command)
			}
			return c.printTable(t, "No processes.")
		},
	}
	addApp(cmd, &app)
	return cmd
}
