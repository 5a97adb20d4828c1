package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"drover"
)

func newKeyCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "key",
		Short: "Keys: what volumes are encrypted with",
		Long: `Every encrypted volume has a key, which snapshots and forks of it share. Keys
are kept wrapped by the fleet key, which only the control hosts can read. A key
itself is never shown. These commands need an operator's token.`,
	}, newKeyListCommand(c), newKeyRotateCommand(c))
}

func newKeyListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the keys of volumes, and tell who can read them",
		Example: "  drover key list\n  drover key list --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			ring, err := client.Keyring(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(ring)
			}
			if err := c.print("fleet key %s\n", c.fleetKeyText(ring)); err != nil {
				return err
			}
			t := table{header: []string{"ID", "GENERATION", "CREATED"}}
			for _, k := range ring.Keys {
				t.add(k.ID, k.Generation, c.age(k.CreatedAt))
			}
			return c.printTable(t, "No keys.")
		},
	}
}

// fleetKeyText describes the fleet key in one line.
func (c *cli) fleetKeyText(ring drover.Keyring) string {
	hosts := make([]string, len(ring.Hosts))
	for i, host := range ring.Hosts {
		hosts[i] = string(host)
	}
	text := fmt.Sprintf("of generation %d, made %s ago, sealed for %s", ring.Generation, c.age(ring.MadeAt), strings.Join(hosts, ", "))
	if ring.Rotating {
		text += "; keys are being wrapped anew"
	}
	return text
}

func newKeyRotateCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate",
		Short: "Make a new fleet key, and wrap all keys with it",
		Long: `Rotate makes a new fleet key, wraps every volume's key with it, and forgets the
old one. Volumes are not touched, and machines do not notice. If it is cut
short, the control hosts finish it by themselves.`,
		Example: "  drover key rotate",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			ring, err := client.RotateKeys(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(ring)
			}
			return c.print("fleet key %s; it wraps %d keys\n", c.fleetKeyText(ring), len(ring.Keys))
		},
	}
}
