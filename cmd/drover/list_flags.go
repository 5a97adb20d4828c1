package main

import (
	"strings"

	"github.com/spf13/cobra"

	"drover"
	"drover/client"
)

// listFlags narrow a list of machines.
type listFlags struct {
	region           string
	states, metadata []string
	deleted          bool
}

func (f *listFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.region, "region", "", "only those of the region")
	cmd.Flags().StringSliceVar(&f.states, "state", nil, "only those in the state; several with commas")
	cmd.Flags().StringArrayVar(&f.metadata, "metadata", nil, "only those with this metadata, KEY=VALUE; may be repeated")
	cmd.Flags().BoolVar(&f.deleted, "deleted", false, "also those that were destroyed lately")
}

func (f *listFlags) read(cmd *cobra.Command) (client.MachineFilter, error) {
	filter := client.MachineFilter{Region: drover.Region(f.region), IncludeDeleted: f.deleted}
	for _, s := range f.states {
		filter.States = append(filter.States, drover.MachineState(s))
	}
	for _, text := range f.metadata {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return filter, usage(cmd, "--metadata is %q; expected KEY=VALUE", text)
		}
		if filter.Metadata == nil {
			filter.Metadata = map[string]string{}
		}
		filter.Metadata[key] = value
	}
	return filter, nil
}
