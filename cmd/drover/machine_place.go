package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newMachinePlaceCommand(c *cli) *cobra.Command {
	var flags configFlags
	var req apiv1.PlaceRequest
	var app string
	cmd := &cobra.Command{
		Use:   "place",
		Short: "Tell where machines would be placed, and why not elsewhere",
		Long: `Place asks every host whether it could take the machine, or --count of them, and
tells where they would go and what is against the other hosts: memory, CPUs,
disk, a cordon, suspicion, the region, or a volume that is elsewhere. Nothing is
kept for them by it. The exit code is 6 when there is no room for all.`,
		Example: "  drover machine place --app ledger --memory 2GiB\n  drover machine place --app ledger --region ams,fra --count 6 --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			if req.Config, err = c.readConfig(flags.file); err != nil {
				return err
			}
			if err := flags.apply(cmd, &req.Config); err != nil {
				return err
			}
			if err := flags.mounts(cmd.Context(), cmd, client, drover.AppName(app), &req.Config); err != nil {
				return err
			}
			p, err := client.Place(cmd.Context(), drover.AppName(app), req)
			if err != nil {
				return err
			}
			return c.printPlace(p)
		},
	}
	c.needApp(cmd, &app, "app that they would belong to")
	cmd.Flags().StringVar(&req.Region, "region", "", "region, or several with commas between them, in the order in which they are to be tried")
	cmd.Flags().StringVar(&req.Host, "host", "", "host that they would have to be on")
	cmd.Flags().IntVar(&req.Count, "count", 1, "how many")
	flags.addSize(cmd)
	return cmd
}

// addKind adds the flags for the kind of CPUs, and of hosts.
func (f *configFlags) addKind(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.cpuKind, "cpu-kind", "", "kind of CPUs: shared or performance (default shared)")
	cmd.Flags().StringVar(&f.dedication, "host-dedication-id", "", "run on hosts that are dedicated to this only")
}

// addSize adds the flags that say what room a machine needs.
func (f *configFlags) addSize(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.file, "config", "", "file with the config as JSON (- for stdin); flags change what it says")
	flags.StringVar(&f.memory, "memory", "", "memory, such as 512MB or 1GiB; a bare number is in MB (default 256MB)")
	flags.IntVar(&f.cpus, "cpus", 0, "number of CPUs (default 1)")
	flags.StringArrayVarP(&f.volume, "volume", "v", nil, "volume as VOLUME:/path, by its ID or its name; may be repeated")
	f.addKind(cmd)
}

// printPlace shows a place; an error when there is no room for all.
func (c *cli) printPlace(p drover.Place) error {
	t := table{header: []string{"HOST", "REGION", "PLACED", "FITS", "MEMORY FREE", "CPUS FREE", "DISK FREE", "OF THE APP", "WHY NOT"},
		spare: []string{"CPUS FREE", "DISK FREE", "MEMORY FREE"}}
	for _, h := range p.Hosts {
		t.add(h.Host, h.Region, h.Placed, h.Fits, sizeText(h.MemoryFree), fmt.Sprintf("%.2f", h.CPUsFree), sizeText(h.DiskFree), h.SameApp, strings.Join(h.Reasons, "; "))
	}
	var err error
	if c.json {
		err = c.printJSON(p)
	} else {
		err = c.printTable(t, "No worker hosts.")
	}
	if err == nil && p.Missing != "" {
		err = drover.Errorf(drover.Exhausted, "there is room for %d of %d machines: %s would need room that is not there", p.Placed, p.Count, p.Missing).
			WithHint("see above why each host takes no more; ask for less, free something, or add a host")
	}
	return err
}
