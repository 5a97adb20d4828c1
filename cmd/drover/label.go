package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"drover"
)

const labelHelp = `Labels are metadata. Those that begin with "drover." say how machines may be
moved: drover.move (any, one-at-a-time, ask, never), drover.group,
drover.max-unavailable, drover.role (primary, replica), drover.class,
drover.value, drover.pre-move, drover.pre-move-timeout, drover.pre-move-for
(any, cold), drover.move-gate (started, hydrated); see docs/DRAIN.md. A
machine's own labels count before its app's. KEY= removes a label. Without
labels to set, those that there are are shown.`

func newAppLabelCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "label APP [KEY=VALUE]...",
		Short:   "Show or set the labels of an app",
		Long:    labelHelp,
		Example: "  drover app label ledger drover.move=one-at-a-time\n  drover app label ledger",
		Args:    atLeastOne("APP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			app, err := client.App(cmd.Context(), drover.AppName(args[0]))
			if err != nil {
				return err
			}
			for _, arg := range args[1:] {
				key, value, ok := strings.Cut(arg, "=")
				if !ok {
					return usage(cmd, "%q is no label; expected KEY=VALUE", arg)
				}
				if app, err = client.SetAppLabel(cmd.Context(), app.Name, key, value); err != nil {
					return err
				}
			}
			return c.printLabels(app.Metadata, app)
		},
	}
}

func newMachineLabelCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "label ID [KEY=VALUE]...",
		Aliases: []string{"metadata"},
		Short:   "Show or set the labels of a machine, without a restart",
		Long:    labelHelp,
		Example: "  drover machine label 3d8d9c2b7e0a15 drover.role=replica\n  drover machine label 3d8d9c2b7e0a15",
		Args:    atLeastOne("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			for _, arg := range args[1:] {
				key, value, ok := strings.Cut(arg, "=")
				if !ok {
					return usage(cmd, "%q is no label; expected KEY=VALUE", arg)
				}
				if m, err = client.SetMachineLabel(cmd.Context(), m.App, m.ID, key, value); err != nil {
					return err
				}
			}
			return c.printLabels(m.Config.Metadata, m)
		},
	}
	addApp(cmd, &app)
	return cmd
}

// atLeastOne takes the argument of the name, and any number after it.
func atLeastOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage(cmd, "%s is missing", name)
		}
		return nil
	}
}

func (c *cli) printLabels(labels map[string]string, all any) error {
	if c.json {
		return c.printJSON(all)
	}
	t := table{header: []string{"KEY", "VALUE"}}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		t.add(key, labels[key])
	}
	return c.printTable(t, "No labels.")
}
