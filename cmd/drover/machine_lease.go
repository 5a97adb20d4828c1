package main

import (
	"time"

	"github.com/spf13/cobra"

	"drover/apiv1"
)

func newMachineLeaseCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "lease",
		Short: "Leases: who alone may change a machine",
		Long: `A lease keeps everybody else from changing a machine until it is released or
expires: update, start, stop, restart, suspend, cordon, uncordon and destroy
need its nonce then, by --nonce or DROVER_LEASE_NONCE. Metadata, signals, exec
and everything that only looks are free, and hosts move the machine as ever.`,
	},
		newLeaseViewCommand(c), newLeaseAcquireCommand(c), newLeaseReleaseCommand(c))
}

func (c *cli) printLease(l apiv1.Lease) error {
	if c.json {
		return c.printJSON(l)
	}
	return c.printFields([2]string{"Nonce", l.Nonce}, [2]string{"Owner", l.Owner}, [2]string{"For", l.Description},
		[2]string{"Expires", c.deadline(time.Unix(l.ExpiresAt, 0).UTC())}, [2]string{"Instance", string(l.Version)})
}

func newLeaseViewCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "view ID",
		Short:   "Show who has the lease of a machine, and its nonce",
		Example: "  drover machine lease view 3d8d9c2b7e0a15",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			l, err := client.MachineLease(cmd.Context(), m.App, m.ID)
			if err != nil {
				return err
			}
			return c.printLease(l)
		},
	}
	addApp(cmd, &app)
	return cmd
}

func newLeaseAcquireCommand(c *cli) *cobra.Command {
	var app, description string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:     "acquire ID",
		Short:   "Lease a machine, or prolong the lease whose nonce is given",
		Example: "  drover machine lease acquire 3d8d9c2b7e0a15 --ttl 10m --for 'a schema change'",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			l, err := client.LeaseMachine(cmd.Context(), m.App, m.ID, c.leaseNonce(), ttl, description)
			if err != nil {
				return err
			}
			return c.printLease(l)
		},
	}
	addApp(cmd, &app)
	cmd.Flags().DurationVar(&ttl, "ttl", time.Minute, "how long it holds if it is not prolonged")
	cmd.Flags().StringVar(&description, "for", "", "what it is for; whoever finds the machine leased reads it")
	return cmd
}

func newLeaseReleaseCommand(c *cli) *cobra.Command {
	var app string
	var force bool
	cmd := &cobra.Command{
		Use:     "release ID",
		Short:   "Release the lease whose nonce is given",
		Example: "  drover machine lease release 3d8d9c2b7e0a15 --nonce 2LVMHTZXN5RUGV7TQXPGJPVLQT\n  drover machine lease release 3d8d9c2b7e0a15 --force",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			nonce := c.leaseNonce()
			switch {
			case force:
				l, err := client.MachineLease(cmd.Context(), m.App, m.ID)
				if err != nil {
					return err
				}
				nonce = l.Nonce
			case nonce == "":
				return usage(cmd, "the lease's nonce is missing; expected --nonce, or --force for the lease of somebody else")
			}
			if err := client.ReleaseMachine(cmd.Context(), m.App, m.ID, nonce); err != nil {
				return err
			}
			return c.printMachine(m, "machine %s is not leased any more", m.ID)
		},
	}
	addApp(cmd, &app)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "release it whoever has it")
	return cmd
}

// leaseNonce is the nonce of the lease with which machines are changed.
func (c *cli) leaseNonce() string {
	if c.nonce != "" {
		return c.nonce
	}
	return c.getenv(envNonce)
}
