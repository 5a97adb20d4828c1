package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"drover"
)

func newHostCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "host",
		Short: "Hosts: the servers of the fleet",
		Long:  "A host is a server of the fleet. These commands need an operator's token.",
	}, newHostListCommand(c), newHostShowCommand(c), newHostLayersCommand(c), newHostMachinesCommand(c),
		newHostStorageCommand(c), newHostCordonCommand(c), newHostUncordonCommand(c), newHostDrainCommand(c), newHostConfirmOffCommand(c), newHostFenceCommand(c),
		newHostKeptCommand(c), newHostRotateKeyCommand(c))
}

func newHostListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List hosts",
		Example: "  drover host list\n  drover host list --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			hosts, err := client.Hosts(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(hosts)
			}
			t := table{header: []string{"ID", "REGION", "STATUS", "ROLES", "ACCEL", "CPUS", "MEMORY", "DISK", "PROVISIONED", "MACHINES", "SEEN", "CONDITIONS"},
				spare: []string{"ROLES", "ACCEL", "PROVISIONED", "CPUS", "DISK", "MEMORY"}}
			for _, h := range hosts {
				t.add(h.ID, h.Region, statusText(h), rolesText(h.Roles), h.Accel, h.CPUs, usedText(h.MemoryUsed, h.Memory), usedText(h.DiskUsed, h.Disk),
					provisionedText(h), h.Machines, c.age(h.SeenAt), conditionCodes(h.Conditions))
			}
			return c.printTable(t, "No hosts.")
		},
	}
}

// statusText says whether a host answers, and what closes it.
func statusText(h drover.HostInfo) string {
	text := string(h.Status)
	switch {
	case h.Mark == nil:
	case h.Mark.Suspect:
		text += ",suspect"
	default:
		text += ",cordoned"
	}
	return text
}

func rolesText(roles []drover.Role) string {
	var names []string
	for _, r := range roles {
		names = append(names, string(r))
	}
	return strings.Join(names, ",")
}

func usedText(used, all drover.Bytes) string {
	if all == 0 {
		return ""
	}
	return sizeText(used) + " of " + sizeText(all)
}

// provisionedText says what the volumes of a host may grow to, and how many times its disk that is.
func provisionedText(h drover.HostInfo) string {
	if h.Disk <= 0 {
		return ""
	}
	return fmt.Sprintf("%s (%.2fx)", sizeText(h.DiskProvisioned), float64(h.DiskProvisioned)/float64(h.Disk))
}

func newHostShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show a host",
		Example: "  drover host show h1",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			h, err := client.Host(cmd.Context(), drover.HostID(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(h)
			}
			accel := string(h.Accel)
			if h.AccelReason != "" {
				accel += " (" + h.AccelReason + ")"
			}
			err = c.printFields([2]string{"ID", string(h.ID)}, [2]string{"Region", string(h.Region)}, [2]string{"Status", string(h.Status)},
				[2]string{"Reach", string(h.Reach)},
				[2]string{"Roles", rolesText(h.Roles)}, [2]string{"Address", h.Address}, [2]string{"Storage", h.StorageAddress},
				[2]string{"Accelerator", accel}, [2]string{"VMM", h.VMM}, [2]string{"Version", h.Version}, [2]string{"CPUs", fmt.Sprint(h.CPUs)},
				[2]string{"Memory", usedText(h.MemoryUsed, h.Memory)}, [2]string{"Disk", usedText(h.DiskUsed, h.Disk)},
				[2]string{"Provisioned", provisionedText(h)}, [2]string{"Machines", fmt.Sprint(h.Machines)}, [2]string{"Started", c.moment(h.StartedAt)}, [2]string{"Seen", c.moment(h.SeenAt)},
				[2]string{"Closed", c.markText(h.Mark)})
			if err != nil {
				return err
			}
			return c.printConditions(h.Conditions)
		},
	}
}

func newHostLayersCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "layers ID",
		Short:   "List the layers in a host's pool",
		Example: "  drover host layers h1",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			layers, err := client.HostLayers(cmd.Context(), drover.HostID(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(layers)
			}
			t := table{header: []string{"LAYER", "DISK", "STATE", "SIZE", "ALLOCATED", "WRITER", "CLIENTS", "EXPORTED TO", "HYDRATION"}}
			for _, l := range layers {
				writer := ""
				if l.Writer != 0 {
					writer = fmt.Sprintf("epoch %d", l.Writer)
				}
				var exports []string
				for _, host := range l.Exports {
					exports = append(exports, string(host))
				}
				t.add(l.ID, l.Disk, l.State, sizeText(l.Size), sizeText(l.Allocated), writer, l.Clients, strings.Join(exports, ","), hydrationText(l.Hydration))
			}
			return c.printTable(t, "The host's pool has no layers.")
		},
	}
}

func newHostMachinesCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "machines ID",
		Short:   "List the machines on a host, of every app",
		Example: "  drover host machines h1",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			machines, err := client.HostMachines(cmd.Context(), drover.HostID(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(machines)
			}
			return c.printTable(c.machineTable(machines), "No machines on the host.")
		},
	}
}
