package main

import "github.com/spf13/cobra"

// addOtherNames gives commands the names that people bring along from other tools: a noun in its plural, and the usual short words for what is done
// with it. They are the same everywhere, so that nobody has to remember where there is one.
func addOtherNames(root *cobra.Command) {
	plurals := map[string]string{"app": "apps", "machine": "machines", "volume": "volumes", "host": "hosts", "key": "keys", "token": "tokens",
		"migration": "migrations", "drain": "drains", "region": "regions", "network": "networks", "recovery": "recoveries", "deploy": "deploys",
		"snapshot": "snapshots", "standby": "standbys", "lease": "leases", "policy": "policies", "secrets": "secret"}
	verbs := map[string][]string{"list": {"ls"}, "destroy": {"delete", "rm"}, "delete": {"destroy", "rm"}}
	everyCommand(root, func(cmd *cobra.Command) {
		if other, ok := plurals[cmd.Name()]; ok && cmd.HasSubCommands() {
			cmd.Aliases = append(cmd.Aliases, other)
		}
		cmd.Aliases = append(cmd.Aliases, verbs[cmd.Name()]...)
	})
}
