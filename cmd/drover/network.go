package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"drover"
)

func newNetworkCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "network",
		Short: "The private networks: what hosts believe of where machines are",
		Long: `Machines reach each other at private addresses that stay for life. Each host
knows by which other host a machine is reached, and learns of moves by itself.
These commands need an operator's token. docs/NETWORK.md has the whole of it.`,
	}, newNetworkCheckCommand(c), newNetworkPolicyCommand(c), newNetworkReleaseCommand(c))
}

func newNetworkCheckCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Compare what every host believes with where machines are",
		Long: `Check asks every worker host by which host it reaches each machine, and compares
that with the placements. What a host believes and is not so, twice within a
second, is stale, and is named. It also shows which links between hosts are bad,
with the direction, and how long the news of the last moves took. The exit code
is not 0 when something is wrong.`,
		Example: "  drover network check\n  drover network check --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			check, err := client.CheckNetwork(cmd.Context())
			if err != nil {
				return err
			}
			return c.printNetwork(check)
		},
	}
}

func (c *cli) printNetwork(check drover.NetworkCheck) error {
	if c.json {
		if err := c.printJSON(check); err != nil {
			return err
		}
	} else if err := c.printNetworkHosts(check); err != nil {
		return err
	}
	if !check.OK {
		return drover.Errorf(drover.Precondition, "the private network is not as it should be").WithHint("what is wrong is listed above; docs/NETWORK.md says what to do")
	}
	return nil
}

func (c *cli) printNetworkHosts(check drover.NetworkCheck) error {
	hosts := table{header: []string{"HOST", "ADDRESS", "MACHINES", "STALE", "LINKS", "NEWS P99", "PROBLEM"}}
	stale := table{header: []string{"HOST", "MACHINE", "ADDRESS", "BELIEVED ON", "IS ON", "SINCE"}}
	for _, h := range check.Hosts {
		address, bad := "-", 0
		if h.Mesh.Mesh != nil {
			address = h.Mesh.Mesh.PrivateAddress
		}
		for _, l := range h.Mesh.Links {
			if l.Bad {
				bad++
			}
		}
		links := fmt.Sprintf("%d ok", len(h.Mesh.Links)-bad)
		if bad > 0 {
			links += fmt.Sprintf(", %d bad", bad)
		}
		news := "-"
		if h.Mesh.News.Count > 0 {
			news = time.Duration(h.Mesh.News.P99).Round(time.Millisecond).String()
		}
		hosts.add(h.Host, address, h.Checked, len(h.Stale), links, news, cmp.Or(h.Problem, h.Mesh.Problem, "-"))
		for _, s := range h.Stale {
			stale.add(h.Host, cmp.Or(string(s.Machine), "-"), s.Address, cmp.Or(s.Believed, "-"), cmp.Or(string(s.Placed), "-"), c.moment(s.Since))
		}
	}
	if err := c.printTable(hosts, "No worker hosts."); err != nil {
		return err
	}
	for _, h := range check.Hosts {
		for _, l := range h.Mesh.Links {
			if l.Bad {
				if err := c.print("%s\n", l.Text); err != nil {
					return err
				}
			}
		}
	}
	if len(stale.rows) == 0 {
		return nil
	}
	if err := c.print("\nStale:\n"); err != nil {
		return err
	}
	return c.printTable(stale, "")
}

func newNetworkReleaseCommand(c *cli) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "release HOST",
		Short: "Let another host join with the name of one that is gone",
		Long: `A host joins with a name, and the name is its own: a second host that comes with
it is refused. Release takes the name from a host that is gone for good, so that
the one that replaces it may have it. The new host gets a number and a private
address of its own. It is refused while the old host is heard.`,
		Example: "  drover network release h1",
		Args:    exactly("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			if !yes {
				if err := c.confirm(cmd.Context(), false, fmt.Sprintf("release the name %s, so that another host may join with it", args[0])); err != nil {
					return err
				}
			}
			id, err := client.ReleaseHost(cmd.Context(), drover.HostID(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(id)
			}
			return c.print("the name %s is free; it was that of the host at %s\n", id.Host, id.Address)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
