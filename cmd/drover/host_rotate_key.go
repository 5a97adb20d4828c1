package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"drover"
	"drover/client"
)

func newHostRotateKeyCommand(c *cli) *cobra.Command {
	var people, cancel, detach, yes bool
	cmd := &cobra.Command{
		Use:   "rotate-key HOST",
		Short: "Let a host get another key for the private network, without a packet being lost",
		Long: `Rotate-key lets a host get another WireGuard key. It is reached by both keys
until every other host has said that it sends by the new one; no packet is lost.
Hosts from which nothing comes are not waited for: they learn the key when they
are back. While another host answers and goes on sending by the old key, the
host has the condition mesh-key-waits. The command follows the rotation, and may
be called again to go on following it; the rotation goes on without it.

People's WireGuard peers know the host by a key of their own, which stays. With
--people that is changed as well, and every peer of the host needs a new
configuration: 'drover wireguard show NAME' prints the key.

--cancel takes back the key that the host is about to have, as long as the old
one is there: the host keeps that, and no packet is lost either.`,
		Example: "  drover host rotate-key h1\n  drover host rotate-key h1 --people --yes\n  drover host rotate-key h1 --cancel",
		Args:    exactly("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.connect()
			if err != nil {
				return err
			}
			host := drover.HostID(args[0])
			if cancel {
				key, err := api.CancelKey(cmd.Context(), host)
				if err == nil && !detach {
					key, err = c.followKey(cmd.Context(), api, host, key)
				}
				if err != nil {
					return err
				}
				return c.printKey(host, key)
			}
			if people && !yes {
				if err := c.confirm(cmd.Context(), true, fmt.Sprintf("shut out all people's peers of host %s until they have a new configuration", host)); err != nil {
					return err
				}
			}
			key, err := api.RotateKey(cmd.Context(), host, people)
			if err != nil {
				return err
			}
			if !detach {
				if key, err = c.followKey(cmd.Context(), api, host, key); err != nil {
					return err
				}
			}
			if err := c.printKey(host, key); err != nil || !key.Rotation.Canceled() {
				return err
			}
			return drover.Errorf(drover.Conflict, "the key of host %s is the one that it had: %s has canceled the rotation %s", host, key.Rotation.CanceledBy, key.Rotation.ID)
		},
	}
	cmd.Flags().BoolVar(&people, "people", false, "change the key by which people's peers know the host, too")
	cmd.Flags().BoolVar(&cancel, "cancel", false, "take back the key that the host is about to have")
	cmd.MarkFlagsMutuallyExclusive("cancel", "people")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for the end")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// followKey waits until the rotation that was begun has ended.
func (c *cli) followKey(ctx context.Context, api *client.Client, host drover.HostID, begun drover.MeshKey) (drover.MeshKey, error) {
	p := c.progress()
	defer p.clear()
	key, err := api.FollowKey(ctx, host, begun, func(now drover.MeshKey) error {
		if now.Rotation.Running() {
			waits := hostsText(now.WaitsFor)
			if now.Rotation.Canceled() {
				p.state(waits, "host %s takes its next key back; by that may still send: %s", host, cmp.Or(namesOf(now.WaitsFor), "nobody"))
				return nil
			}
			p.state(waits, "host %s is reached by two keys, until these send by the new one: %s", host, waits)
		}
		return nil
	})
	if drover.Is(err, drover.Canceled) {
		return key, drover.Errorf(drover.Canceled, "stopped following the rotation of the key of host %s; it goes on", host).
			WithHint("'drover host rotate-key %s' follows it again", host)
	}
	return key, err
}

func hostsText(hosts []drover.HostID) string { return cmp.Or(namesOf(hosts), "all others do") }

func namesOf(hosts []drover.HostID) string {
	names := make([]string, len(hosts))
	for i, h := range hosts {
		names[i] = string(h)
	}
	return strings.Join(names, ", ")
}

func (c *cli) printKey(host drover.HostID, key drover.MeshKey) error {
	if c.json {
		return c.printJSON(key)
	}
	r := key.Rotation
	if r.Canceled() {
		state := "is being taken back"
		if !r.Running() {
			state = "is gone"
		}
		return c.print("host %s keeps the key %s (number %d): the next one, of rotation %s, %s (%s, %s)\n", host, key.PublicKey, key.Number, r.ID, state, r.CanceledBy, c.moment(r.CanceledAt))
	}
	if r.Running() {
		return c.print("host %s gets another key (%s, asked for by %s)\n", host, r.ID, r.By)
	}
	if r == nil {
		return c.print("host %s has the key that it came with\n", host)
	}
	if err := c.print("host %s has the key %s (number %d) since %s\n", host, key.PublicKey, key.Number, c.moment(r.EndedAt)); err != nil {
		return err
	}
	if len(r.Silent) > 0 {
		if err := c.print("not waited for, because nothing came from them: %s\n", hostsText(r.Silent)); err != nil {
			return err
		}
	}
	if !key.NextAt.IsZero() {
		return c.print("its schedule gives it the next one at %s\n", c.moment(key.NextAt))
	}
	return nil
}
