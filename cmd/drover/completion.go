package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/client"
)

// completionWait bounds how long the fleet may take to tell names to a shell.
const completionWait = 3 * time.Second

// names lists what can be written at a place, each perhaps with a tab and a description.
type names func(ctx context.Context, cl *client.Client, app drover.AppName) ([]string, error)

// addCompletion lets a shell complete the names of what the fleet has: the first argument of commands about a noun, and flags that name things.
func addCompletion(c *cli, root *cobra.Command) {
	nouns := map[string]names{"app": appNames, "machine": machineNames, "volume": volumeNames, "host": hostNames, "drain": drainNames, "migration": migrationNames,
		"token": tokenNames, "deploy": deployNames, "wireguard": peerNames}
	flags := map[string]names{"app": appNames, "to": hostNames, "host": hostNames, "region": regionNames,
		"process-group": groupNames, "org": organizationNames, "token-id": tokenNames}
	for _, cmd := range root.Commands() {
		if cmd.Name() != "token" {
			continue
		}
		for _, sub := range cmd.Commands() {
			switch sub.Name() {
			case "rotate-root":
				sub.ValidArgsFunction = firstOnly(c.completion(organizationNames))
			case "attenuate", "roots":
				sub.ValidArgsFunction = cobra.NoFileCompletions
			}
		}
	}
	everyCommand(root, func(cmd *cobra.Command) {
		for name, list := range flags {
			if cmd.Flags().Lookup(name) != nil {
				_ = cmd.RegisterFlagCompletionFunc(name, c.completion(list)) // it fails for a flag that has one
			}
		}
	})
	words := map[string][]string{"strategy": {"rolling", "immediate"}, "restart": {"no", "on-failure", "always"}, "cpu-kind": {"shared", "performance"},
		"disk-transport": {"nbd", "vhost-user-blk", "auto"}, "switch": {"early", "late", "auto"},
		"state": {"created", "starting", "started", "stopping", "stopped", "suspending", "suspended", "failed", "destroying", "destroyed", "settled"}}
	everyCommand(root, func(cmd *cobra.Command) {
		for name, list := range words {
			if f := cmd.Flags().Lookup(name); f != nil && f.Value.Type() != "bool" {
				_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
			}
		}
	})
	for _, cmd := range root.Commands() {
		if list := nouns[cmd.Name()]; list != nil {
			completeBelow(cmd, c.completion(list))
		}
	}
	for _, cmd := range root.Commands() {
		if cmd.Name() == "secrets" {
			for _, sub := range cmd.Commands() {
				if sub.Name() == "unset" {
					sub.ValidArgsFunction = c.completion(secretNames)
				}
			}
		}
		if cmd.Name() == "exec" || cmd.Name() == "ssh" {
			cmd.ValidArgsFunction = firstOnly(c.completion(machineNames))
		}
	}
}

// everyCommand calls the function with a command and all below it.
func everyCommand(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, sub := range cmd.Commands() {
		everyCommand(sub, do)
	}
}

// completeBelow completes the first argument of each command about a noun, unless the command makes a new one or lists them.
func completeBelow(cmd *cobra.Command, complete cobra.CompletionFunc) {
	for _, sub := range cmd.Commands() {
		if sub.HasSubCommands() {
			completeBelow(sub, complete)
			continue
		}
		if sub.Name() != "create" && sub.Name() != "list" && sub.ValidArgsFunction == nil {
			sub.ValidArgsFunction = firstOnly(complete)
		}
	}
}

func firstOnly(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, typed)
	}
}

// completion asks the fleet. When it does not answer there is nothing to complete: an error would spoil the line that is being typed.
func (c *cli) completion(list names) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
		defer cancel()
		cl, err := c.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		app := ""
		if f := cmd.Flags().Lookup("app"); f != nil && f.Value.Type() == "string" {
			app = f.Value.String()
		}
		all, err := list(ctx, cl, drover.AppName(app))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var fitting []cobra.Completion
		for _, name := range all {
			if strings.HasPrefix(name, typed) {
				fitting = append(fitting, name)
			}
		}
		return fitting, cobra.ShellCompDirectiveNoFileComp
	}
}

func described(name any, format string, args ...any) string {
	return fmt.Sprintf("%v\t%s", name, fmt.Sprintf(format, args...))
}

func appNames(ctx context.Context, cl *client.Client, _ drover.AppName) (out []string, err error) {
	apps, err := cl.Apps(ctx, "")
	for _, a := range apps {
		out = append(out, described(a.Name, "%s", count(a.MachineCount, "machine")))
	}
	return out, err
}

func destroyedAppNames(ctx context.Context, cl *client.Client, _ drover.AppName) (out []string, err error) {
	apps, err := cl.DestroyedApps(ctx, "")
	for _, a := range apps {
		if !a.Wiping {
			out = append(out, described(a.Name, "%s, %s", count(a.MachineCount, "machine"), count(a.VolumeCount, "volume")))
		}
	}
	return out, err
}

func secretNames(ctx context.Context, cl *client.Client, app drover.AppName) (out []string, err error) {
	err = ofApps(ctx, cl, app, func(app drover.AppName) error {
		set, err := cl.Secrets(ctx, app, false)
		for _, s := range set.Secrets {
			out = append(out, described(s.Name, "of %s", app))
		}
		return err
	})
	return out, err
}

// ofApps calls the function for the app, or for each that there is.
func ofApps(ctx context.Context, cl *client.Client, app drover.AppName, do func(drover.AppName) error) error {
	if app != "" {
		return do(app)
	}
	apps, err := cl.Apps(ctx, "")
	for _, a := range apps {
		if err := do(a.Name); err != nil && !drover.Is(err, drover.NotFound) {
			return err
		}
	}
	return err
}

func machineNames(ctx context.Context, cl *client.Client, app drover.AppName) (out []string, err error) {
	err = ofApps(ctx, cl, app, func(app drover.AppName) error {
		machines, err := cl.Machines(ctx, app)
		for _, m := range machines {
			out = append(out, described(m.Name, "%s of %s, %s", m.ID, app, m.State), described(m.ID, "%s of %s, %s", m.Name, app, m.State))
		}
		return err
	})
	return out, err
}

func volumeNames(ctx context.Context, cl *client.Client, app drover.AppName) (out []string, err error) {
	err = ofApps(ctx, cl, app, func(app drover.AppName) error {
		volumes, err := cl.Volumes(ctx, app)
		for _, v := range volumes {
			out = append(out, described(v.ID, "%s of %s", v.Name, app))
		}
		return err
	})
	return out, err
}

func hostNames(ctx context.Context, cl *client.Client, _ drover.AppName) (out []string, err error) {
	hosts, err := cl.Hosts(ctx)
	for _, h := range hosts {
		out = append(out, described(h.ID, "%s, %s", h.Region, h.Status))
	}
	return out, err
}

func regionNames(ctx context.Context, cl *client.Client, _ drover.AppName) (out []string, err error) {
	hosts, err := cl.Hosts(ctx)
	seen := map[drover.Region]bool{}
	for _, h := range hosts {
		if !seen[h.Region] {
			seen[h.Region] = true
			out = append(out, string(h.Region))
		}
	}
	return out, err
}

func drainNames(ctx context.Context, cl *client.Client, _ drover.AppName) (out []string, err error) {
	drains, err := cl.Drains(ctx, "")
	for _, d := range drains {
		out = append(out, described(d.ID, "%s, %s", d.Host, d.State))
	}
	return out, err
}

func migrationNames(ctx context.Context, cl *client.Client, _ drover.AppName) (out []string, err error) {
	migrations, err := cl.Migrations(ctx, "")
	for _, m := range migrations[:min(len(migrations), 50)] {
		out = append(out, described(m.ID, "machine %s, %s", m.Machine, m.Outcome))
	}
	return out, err
}

func peerNames(ctx context.Context, cl *client.Client, _ drover.AppName) (out []string, err error) {
	peers, err := cl.Peers(ctx, "")
	for _, p := range peers {
		out = append(out, described(p.Name, "%s, %s", p.Organization, p.Address))
	}
	return out, err
}

func tokenNames(ctx context.Context, cl *client.Client, _ drover.AppName) (out []string, err error) {
	tokens, err := cl.Tokens(ctx, "")
	for _, t := range tokens {
		if t.RevokedAt.IsZero() {
			out = append(out, described(t.ID, "%s of %s", t.Name, kindOf(t)))
		}
	}
	return out, err
}

func organizationNames(ctx context.Context, cl *client.Client, _ drover.AppName) (out []string, err error) {
	apps, err := cl.Apps(ctx, "")
	for _, a := range apps {
		if !slices.Contains(out, a.Organization.Slug) {
			out = append(out, a.Organization.Slug)
		}
	}
	return out, err
}

func groupNames(ctx context.Context, cl *client.Client, app drover.AppName) (out []string, err error) {
	err = ofApps(ctx, cl, app, func(app drover.AppName) error {
		machines, err := cl.Machines(ctx, app)
		for _, m := range machines {
			if group := groupOf(m); group != "" && !slices.Contains(out, group) {
				out = append(out, group)
			}
		}
		return err
	})
	return out, err
}

func deployNames(ctx context.Context, cl *client.Client, app drover.AppName) (out []string, err error) {
	err = ofApps(ctx, cl, app, func(app drover.AppName) error {
		deploys, err := cl.Deploys(ctx, app)
		for _, d := range deploys {
			out = append(out, described(d.ID, "%s: %s", d.State, d.Text))
		}
		return err
	})
	return out, err
}
