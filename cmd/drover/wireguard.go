package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/internal/units"
	"drover/mesh"
)

func newWireGuardCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "wireguard",
		Short: "People's own ways into a private network",
		Long: `A peer is a person's WireGuard client in the private network of an organization:
it has an address of its own there, reaches the network's machines by address and
name, and nothing else. It connects to one host, which may be changed.
docs/NETWORK.md has the whole of it.`,
	}, newWireGuardCreateCommand(c), newWireGuardListCommand(c), newWireGuardShowCommand(c), newWireGuardMoveCommand(c), newWireGuardRemoveCommand(c))
}

// peerOutput is a peer with the configuration of its end, for programs.
type peerOutput struct {
	drover.WireGuardView
	Config string `json:"config"`
}

func newWireGuardCreateCommand(c *cli) *cobra.Command {
	var req apiv1.CreatePeerRequest
	var file string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Let a person's WireGuard client into a private network",
		Long: `Create makes a peer and prints the configuration of its end, in the form of
wg-quick(8); --file writes it into a new file that only you may read. The private
key is made here: the fleet gets the public key, and nobody can show the private
one again. With --public-key you keep your own, and put it into the configuration
yourself.`,
		Example: `  drover wireguard create ann --file ann.conf && sudo wg-quick up ./ann.conf
  drover wireguard create ci --org acme --network staging --region ams
  drover wireguard create bob --public-key "$(wg pubkey < bob.key)"`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
			private, once := "put the private key here", ""
			if req.PublicKey == "" {
				key, err := mesh.NewPrivateKey()
				if err != nil {
					return err
				}
				private, req.PublicKey, once = key.Reveal(), key.Public(), "; its private key is not shown again"
			}
			client, err := c.connect()
			if err != nil {
				return err
			}
			write := func(string) error { return nil }
			if file != "" {
				// Before the peer is made: what its key is to go into has to be there.
				var drop func()
				if write, drop, err = newPrivateFile(file); err != nil {
					return err
				}
				defer drop()
			}
			p, err := client.CreatePeer(cmd.Context(), req)
			if err != nil {
				return err
			}
			config := peerConfig(p, private)
			if err := write(config); err != nil {
				return err
			}
			if file != "" {
				config = ""
			}
			if c.json {
				return c.printJSON(peerOutput{p, config})
			}
			fmt.Fprintf(c.stderr, "peer %s of %s has the address %s and connects to host %s%s\n", p.Name, p.Organization, p.Address, p.Host, once)
			return c.print("%s", config)
		},
	}
	cmd.Flags().StringVar(&req.OrgSlug, "org", "", "organization (default that of the token)")
	cmd.Flags().StringVar(&req.Network, "network", "", "named network of the organization (default its own)")
	cmd.Flags().StringVar((*string)(&req.Region), "region", "", "connect to a host of the region")
	cmd.Flags().StringVar((*string)(&req.Host), "host", "", "connect to the host")
	cmd.Flags().StringVar(&req.PublicKey, "public-key", "", "public key of the person's client (default: make a key)")
	cmd.Flags().StringVar(&file, "file", "", "write the configuration into this new file")
	return cmd
}

// newPrivateFile makes a file that only its owner may read. write fills it; drop removes it unless it was filled.
func newPrivateFile(path string) (write func(string) error, drop func(), err error) {
	failed := func(err error) error {
		return drover.Errorf(drover.Invalid, "cannot write the new file %q: %w", path, err).WithField("file")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, nil, failed(err)
	}
	filled := false
	write = func(text string) error {
		_, err := f.WriteString(text)
		if err = errors.Join(err, f.Sync()); err != nil {
			return failed(err)
		}
		filled = true
		return nil
	}
	return write, func() {
		f.Close()
		if !filled {
			os.Remove(path)
		}
	}, nil
}

// peerConfig is what the person's end has to know, for wg-quick(8).
func peerConfig(p drover.WireGuardView, private string) string {
	text := fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = %s/128\nDNS = %s\nMTU = %d\n", private, p.Address, p.DNS, p.MTU)
	return text + peerSection(p)
}

// peerSection is the part of it that is about the host.
func peerSection(p drover.WireGuardView) string {
	text := "\n[Peer]\nPublicKey = " + p.EndpointKey + "\nEndpoint = " + p.Endpoint + "\nAllowedIPs = "
	for i, prefix := range p.AllowedIPs {
		if i > 0 {
			text += ", "
		}
		text += prefix
	}
	return text + "\nPersistentKeepalive = 25\n"
}

func newWireGuardListCommand(c *cli) *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List peers, with when each was last seen",
		Example: "  drover wireguard list\n  drover wireguard list --org acme",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			peers, err := client.Peers(cmd.Context(), org)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(peers)
			}
			t := table{header: []string{"NAME", "ORG", "NETWORK", "ADDRESS", "HOST", "HANDSHAKE", "RECEIVED", "SENT", "PROBLEM"},
				spare: []string{"SENT", "RECEIVED", "NETWORK"}}
			for _, p := range peers {
				t.add(p.Name, p.Organization, p.Network, p.Address, p.Host, c.handshakeText(p.HandshakeAt), units.Size(drover.Bytes(p.Received)), units.Size(drover.Bytes(p.Sent)), p.Problem)
			}
			return c.printTable(t, "No peers.")
		},
	}
	cmd.Flags().StringVar(&org, "org", "", "only those of the organization")
	return cmd
}

func (c *cli) handshakeText(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return c.age(at) + " ago"
}

func newWireGuardShowCommand(c *cli) *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use:     "show NAME",
		Short:   "Describe a peer, with the part of its configuration that is about its host",
		Example: "  drover wireguard show ann",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			p, err := client.Peer(cmd.Context(), org, args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(peerOutput{p, peerSection(p)})
			}
			if err := c.printFields([2]string{"Name", p.Name}, [2]string{"Organization", p.Organization}, [2]string{"Network", p.Network}, [2]string{"Address", p.Address},
				[2]string{"Public key", p.PublicKey}, [2]string{"Host", string(p.Host)}, [2]string{"Region", string(p.Region)}, [2]string{"Created", c.moment(p.CreatedAt)},
				[2]string{"Handshake", c.handshakeText(p.HandshakeAt)}, [2]string{"Received", units.Size(drover.Bytes(p.Received))}, [2]string{"Sent", units.Size(drover.Bytes(p.Sent))},
				[2]string{"Problem", p.Problem}); err != nil {
				return err
			}
			return c.print("%s", peerSection(p))
		},
	}
	cmd.Flags().StringVar(&org, "org", "", "organization (default that of the token)")
	return cmd
}

func newWireGuardMoveCommand(c *cli) *cobra.Command {
	var org string
	var req apiv1.MovePeerRequest
	cmd := &cobra.Command{
		Use:   "move NAME",
		Short: "Let a peer connect to another host, when its host is lost for one",
		Long: `Move lets a peer connect to another host, with its address and its key. It prints
the part of the configuration that is about the host, which is new: put it in
place of the old [Peer]. Where the peer connected before, it is shut out at once.`,
		Example: "  drover wireguard move ann\n  drover wireguard move ann --host h2",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			p, err := client.MovePeer(cmd.Context(), org, args[0], req)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(peerOutput{p, peerSection(p)})
			}
			fmt.Fprintf(c.stderr, "peer %s connects to host %s now; this takes the place of [Peer] in its configuration:\n", p.Name, p.Host)
			return c.print("%s", peerSection(p))
		},
	}
	cmd.Flags().StringVar(&org, "org", "", "organization (default that of the token)")
	cmd.Flags().StringVar((*string)(&req.Region), "region", "", "to a host of the region")
	cmd.Flags().StringVar((*string)(&req.Host), "host", "", "to the host")
	return cmd
}

func newWireGuardRemoveCommand(c *cli) *cobra.Command {
	var org string
	var yes bool
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Short:   "Shut a peer out for good, at once",
		Example: "  drover wireguard remove ann --yes",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			if err := c.confirm(cmd.Context(), yes, "shut out the peer "+args[0]); err != nil {
				return err
			}
			p, err := client.RemovePeer(cmd.Context(), org, args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(p)
			}
			return c.print("peer %s of %s is shut out; its address %s is given to nobody else\n", p.Name, p.Organization, p.Address)
		},
	}
	cmd.Flags().StringVar(&org, "org", "", "organization (default that of the token)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
