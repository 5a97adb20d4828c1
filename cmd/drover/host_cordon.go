package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newHostCordonCommand(c *cli) *cobra.Command {
	var req apiv1.CordonRequest
	var lasts durationFlag
	cmd := &cobra.Command{
		Use:   "cordon HOST --reason TEXT",
		Short: "Close a host for new machines, volumes and moves",
		Long: `Cordon closes a host: nothing new comes to it; what is there runs on. The mark
has an owner (the token's), a reason and a time. When the time is over the mark
stays, and the host has the condition mark-expired until somebody prolongs it,
by cordoning it again, or uncordons it. A host that is --suspect is not trusted
any more: what leaves it leaves by an early switch.`,
		Example: "  drover host cordon h1 --reason 'a fan is loud' --for 4h\n  drover host cordon h1 --reason 'ECC errors' --suspect",
		Args:    exactly("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			req.For = lasts.d
			h, err := client.CordonHost(cmd.Context(), drover.HostID(args[0]), req)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(h)
			}
			return c.print("host %s is %s\n", h.ID, c.markText(h.Mark))
		},
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; whoever finds the host closed reads it")
	cmd.Flags().Var(&lasts, "for", "after what time somebody is to look after it, such as 4h (default 24h)")
	cmd.Flags().BoolVar(&req.Suspect, "suspect", false, "the host is not trusted any more")
	return cmd
}

func newHostUncordonCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "uncordon HOST",
		Short:   "Open a host again",
		Example: "  drover host uncordon h1",
		Args:    exactly("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			h, err := client.UncordonHost(cmd.Context(), drover.HostID(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(h)
			}
			return c.print("host %s is open\n", h.ID)
		},
	}
}

// markText says what closes a host; empty for nothing.
func (c *cli) markText(m *drover.HostMark) string {
	if m == nil {
		return ""
	}
	kind := "cordoned"
	if m.Suspect {
		kind = "suspect"
	}
	if m.Drain != "" {
		kind += fmt.Sprintf(", drained by %s", m.Drain)
	}
	text := fmt.Sprintf("%s since %s, by %s: %s", kind, c.moment(m.Since), m.Owner, m.Reason)
	switch {
	case m.ExpiresAt.IsZero():
	case c.now().After(m.ExpiresAt):
		text += fmt.Sprintf("; to be over by %s", c.moment(m.ExpiresAt))
	default:
		text += fmt.Sprintf("; until %s", c.deadline(m.ExpiresAt))
	}
	return text
}
