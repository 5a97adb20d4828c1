package main

import (
	"slices"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/flytoml"
)

// sizeFlags are those of 'drover scale vm' and 'drover scale memory'.
type sizeFlags struct {
	app, group, memory string
	most               int
	detach             bool
}

func (f *sizeFlags) add(cmd *cobra.Command) {
	addDefaultApp(cmd, &f.app)
	flags := cmd.Flags()
	flags.StringVarP(&f.group, "process-group", "g", "", "only the machines of the process group")
	flags.IntVar(&f.most, "max-unavailable", 1, "how many machines are changed at once")
	flags.BoolVarP(&f.detach, "detach", "d", false, "do not follow; print the deploy's ID only")
}

func newScaleVMCommand(c *cli) *cobra.Command {
	var f sizeFlags
	cmd := &cobra.Command{
		Use:   "vm SIZE",
		Short: "Set the size of an app's machines",
		Long: `Vm gives the app's machines a size such as shared-cpu-2x or performance-4x, one
after another: each is started again, and the next has its turn when it is well.
A stopped machine stays stopped. The memory is that of the size, 256 MB for each
shared CPU and 2 GB for each performance CPU, unless --vm-memory says another.`,
		Example: "  drover scale vm shared-cpu-2x -a ledger\n  drover scale vm performance-2x --vm-memory 8GB -g web",
		Args:    exactly("SIZE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			guest, err := (flytoml.VM{Size: args[0]}).Guest()
			if err != nil {
				return usage(cmd, "%w", err)
			}
			return c.scaleSize(cmd, f, "vm "+args[0], func(g *drover.Guest) {
				g.CPUKind, g.CPUs, g.MemoryMB = guest.CPUKind, guest.CPUs, guest.MemoryMB
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.memory, "vm-memory", "", "memory, such as 512MB or 1GiB; a bare number is in MB")
	return cmd
}

func newScaleMemoryCommand(c *cli) *cobra.Command {
	var f sizeFlags
	cmd := &cobra.Command{
		Use:     "memory SIZE",
		Short:   "Set the memory of an app's machines",
		Long:    "Memory is 'drover scale vm' for the memory only.",
		Example: "  drover scale memory 1GiB -a ledger\n  drover scale memory 512 -g worker",
		Args:    exactly("SIZE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.memory = args[0]
			return c.scaleSize(cmd, f, "memory "+args[0], func(*drover.Guest) {})
		},
	}
	f.add(cmd)
	return cmd
}

// scaleSize changes the machines whose size is another one.
func (c *cli) scaleSize(cmd *cobra.Command, f sizeFlags, text string, change func(*drover.Guest)) error {
	memory := 0
	if f.memory != "" {
		size, err := parseSize(f.memory, drover.MiB)
		if err != nil || size < drover.MiB {
			return usage(cmd, "%q is no amount of memory; expected one such as 512MB or 1GiB", f.memory)
		}
		if memory = int((size + drover.MiB - 1) / drover.MiB); memory < drover.MinMemoryMB {
			return usage(cmd, "%q is %d MB of memory; expected %d MB at least", f.memory, memory, drover.MinMemoryMB)
		}
	}
	s, err := c.scaledApp(cmd.Context(), f.app)
	if err != nil {
		return err
	}
	groups := s.names()
	if f.group != "" {
		if !slices.Contains(groups, f.group) {
			return drover.Errorf(drover.NotFound, "app %q has no process group %q", s.app, f.group).WithHint("'drover scale show -a %s' shows the groups", s.app)
		}
		groups = []string{f.group}
	}
	req := apiv1.DeployRequest{Text: "scale: " + text, MaxUnavailable: f.most, Items: []apiv1.DeployItemRequest{}}
	machines := 0
	for _, group := range groups {
		for _, m := range s.groups[group] {
			machines++
			config := m.Config
			before := machineSize{config.Guest.CPUKind, config.Guest.CPUs, config.Guest.MemoryMB}
			change(&config.Guest)
			if memory != 0 {
				config.Guest.MemoryMB = memory
			}
			if before != (machineSize{config.Guest.CPUKind, config.Guest.CPUs, config.Guest.MemoryMB}) {
				req.Items = append(req.Items, apiv1.DeployItemRequest{Action: drover.DeployUpdate, Machine: m.ID, Group: group, Config: &config})
			}
		}
	}
	switch {
	case machines == 0:
		return drover.Errorf(drover.Precondition, "app %q has no machines that a deploy has made", s.app).WithHint("'drover deploy' makes some")
	case len(req.Items) == 0:
		return c.print("the machines of app %s have that size already\n", s.app)
	}
	return s.begin(cmd.Context(), req, f.detach)
}
