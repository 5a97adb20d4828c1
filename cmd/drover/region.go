package main

import (
	"slices"

	"github.com/spf13/cobra"

	"drover"
)

func newRegionCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "region",
		Short: "Regions: groups of hosts close to each other",
		Long:  "A region is a group of hosts close to each other. These commands need an operator's token.",
	}, newRegionCheckCommand(c))
}

func newRegionCheckCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "check [REGION]",
		Short: "Tell whether every single host could be drained now",
		Long: `Check looks at each host of the region, or of all regions, alone: would its
machines find room on the others? It asks no host; memory and CPUs count, and a
disk that is nearly full. The exit code is 6 when the answer is no for one of
them.`,
		Example: "  drover region check\n  drover region check ams --json",
		Args:    atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			var regions []drover.Region
			if len(args) == 1 {
				regions = []drover.Region{drover.Region(args[0])}
			} else {
				hosts, err := client.Hosts(cmd.Context())
				if err != nil {
					return err
				}
				for _, h := range hosts {
					if slices.Contains(h.Roles, drover.RoleWorker) && !slices.Contains(regions, h.Region) {
						regions = append(regions, h.Region)
					}
				}
				slices.Sort(regions)
			}
			var checks []drover.RegionCheck
			for _, r := range regions {
				check, err := client.CheckRegion(cmd.Context(), r)
				if err != nil {
					return err
				}
				checks = append(checks, check)
			}
			return c.printChecks(checks)
		},
	}
}

// atMostOne takes an argument, or none.
func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage(cmd, "unexpected argument %q", args[1])
	}
	return nil
}

// printChecks shows the checks; an error when one of them says no.
func (c *cli) printChecks(checks []drover.RegionCheck) error {
	t := table{header: []string{"REGION", "HOST", "MACHINES", "DRAINABLE", "MISSING"}}
	no := 0
	for _, check := range checks {
		for _, h := range check.Hosts {
			answer := "yes"
			if !h.OK {
				answer = "no"
				no++
			}
			t.add(check.Region, h.Host, h.Machines, answer, h.Missing)
		}
	}
	var err error
	if c.json {
		if checks == nil {
			checks = []drover.RegionCheck{}
		}
		err = c.printJSON(checks)
	} else {
		err = c.printTable(t, "No worker hosts.")
	}
	if err == nil && no > 0 {
		what := "hosts"
		if no == 1 {
			what = "host"
		}
		return drover.Errorf(drover.Exhausted, "%d %s could not be drained now", no, what).WithHint("see what is missing above; add a host, or free something")
	}
	return err
}
