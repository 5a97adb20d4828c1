package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

func newVolumeStandbyCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "standby",
		Short: "Standbys: copies of a volume on other hosts that follow it",
		Long: `A standby is a copy of a volume on another host. It follows the volume in steps,
each of which is what the volume held at one moment. When the volume's host dies
the last whole step takes the volume's place ('drover recovery start'); what was
written since is what the lag shows.`,
	}, newStandbyCreateCommand(c), newStandbyListCommand(c), newStandbyShowCommand(c), newStandbyDeleteCommand(c))
}

func newStandbyCreateCommand(c *cli) *cobra.Command {
	var app, host, region string
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "create VOLUME",
		Short: "Make a standby of a volume",
		Long: `Create makes a standby of a volume on another host. It returns at once; the
first copy is made in the background. Each step costs the volume a layer for a
moment and the network what was written since the last one.`,
		Example: "  drover volume standby create data --every 30s\n  drover volume standby create vol_6f1c0a53e9b2d784 --host h2",
		Args:    exactly("VOLUME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, v, err := c.volumeOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			s, err := client.CreateStandby(cmd.Context(), v.App, v.ID, apiv1.CreateStandbyRequest{Host: host, Region: region, Every: drover.Duration(every)})
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(s)
			}
			return c.print("standby %s of volume %s is being made on host %s\n", s.ID, s.Volume, s.Host)
		},
	}
	addApp(cmd, &app)
	cmd.Flags().StringVar(&host, "host", "", "host that the standby is to be on (default a fitting one)")
	cmd.Flags().StringVar(&region, "region", "", "region that the standby is to be in (default any)")
	cmd.Flags().DurationVar(&every, "every", 0, "how often a step is made, 1s to 24h (default 60s)")
	return cmd
}

func newStandbyListCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "list [VOLUME]",
		Short:   "List the standbys of a volume, or of all volumes",
		Example: "  drover volume standby list\n  drover volume standby list data --json",
		Args:    atMost("VOLUME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := c.standbysOf(cmd.Context(), app, args)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(list)
			}
			t := table{header: []string{"ID", "VOLUME", "HOST", "STATE", "STEP", "LAG", "PENDING", "EVERY", "PROBLEM"}}
			for _, s := range list {
				problem := ""
				if s.Problem != nil {
					problem = s.Problem.Text
				}
				t.add(s.ID, s.Volume, s.Host, s.State, s.Complete, lagText(s), sizeText(s.Pending), time.Duration(s.Every), problem)
			}
			return c.printTable(t, "No standbys. 'drover volume standby create VOLUME' makes one.")
		},
	}
	addApp(cmd, &app)
	return cmd
}

// lagText says how old the last whole step is.
func lagText(s drover.Standby) string {
	if s.LagSeconds < 0 {
		return "no whole step yet"
	}
	return (time.Duration(s.LagSeconds) * time.Second).String()
}

// standbysOf lists the standbys of the volume that the arguments name, or of every one.
func (c *cli) standbysOf(ctx context.Context, app string, args []string) ([]drover.Standby, error) {
	return ofVolumes(ctx, c, app, args, (*client.Client).Standbys)
}

// standbyOf connects and finds the standby that an argument names.
func (c *cli) standbyOf(ctx context.Context, app, id string) (*client.Client, drover.Standby, error) {
	all, err := c.standbysOf(ctx, app, nil)
	if err != nil {
		return nil, drover.Standby{}, err
	}
	client, err := c.connect()
	if err != nil {
		return nil, drover.Standby{}, err
	}
	for _, s := range all {
		if string(s.ID) == id {
			return client, s, nil
		}
	}
	return nil, drover.Standby{}, drover.Errorf(drover.NotFound, "standby not found: %q", id).WithHint("'drover volume standby list' shows those that there are")
}

func newStandbyShowCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a standby, with how far it lags",
		Example: "  drover volume standby show sby_6f1c0a53e9b2d784",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, s, err := c.standbyOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(s)
			}
			problem, making := "", ""
			if s.Problem != nil {
				problem = s.Problem.Text
			}
			if s.Source != "" {
				making = fmt.Sprintf("step %d from %s, %s to be copied", s.Step, s.Source, sizeText(s.Pending))
			}
			return c.printFields([2]string{"ID", string(s.ID)}, [2]string{"Volume", string(s.Volume)}, [2]string{"App", string(s.App)},
				[2]string{"Host", string(s.Host)}, [2]string{"State", string(s.State)}, [2]string{"Whole step", fmt.Sprint(s.Complete)},
				[2]string{"Is what it was", c.moment(s.CompleteAt)}, [2]string{"Lag", lagText(s)}, [2]string{"Last step copied", sizeText(s.Copied)},
				[2]string{"Under way", making}, [2]string{"Every", time.Duration(s.Every).String()}, [2]string{"Replaces", string(s.Replaces)},
				[2]string{"Problem", problem})
		},
	}
	addApp(cmd, &app)
	return cmd
}

func newStandbyDeleteCommand(c *cli) *cobra.Command {
	var app string
	var yes bool
	cmd := &cobra.Command{
		Use:     "delete ID",
		Short:   "Remove a standby",
		Example: "  drover volume standby delete sby_6f1c0a53e9b2d784 --yes",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, s, err := c.standbyOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if err := c.confirm(cmd.Context(), yes, fmt.Sprintf("remove standby %s of volume %s on host %s", s.ID, s.Volume, s.Host)); err != nil {
				return err
			}
			if s, err = client.DeleteStandby(cmd.Context(), s.App, s.Volume, s.ID); err != nil {
				return err
			}
			if c.json {
				return c.printJSON(s)
			}
			return c.print("standby %s is being removed\n", s.ID)
		},
	}
	addApp(cmd, &app)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
