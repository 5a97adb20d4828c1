package main

import (
	"runtime"

	"github.com/spf13/cobra"
)

// versionInfo tells what a binary is made of.
type versionInfo struct {
	Version string `json:"version"`
	// Go is the version of the compiler, Platform what the binary runs on.
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Tell the version of this program",
		Long:    "Version tells what this program is. What the hosts run is in 'drover host show'.",
		Example: "  drover version\n  drover version --json",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if c.json {
				return c.printJSON(v)
			}
			return c.print("drover %s (%s, %s)\n", v.Version, v.Go, v.Platform)
		},
	}
}
