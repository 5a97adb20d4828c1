package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
	"drover/flytoml"
)

// deployFlags are those of 'drover deploy' itself.
type deployFlags struct {
	config, app, org, image, region, strategy string
	maxUnavailable                            int
	waitTimeout                               time.Duration
	yes, ignoreUnsupported, dryRun, detach    bool
	skipRelease                               bool
}

func newDeployCommand(c *cli) *cobra.Command {
	var f deployFlags
	cmd := group(&cobra.Command{
		Use:   "deploy",
		Short: "Bring an app to what its fly.toml says",
		Long: `Deploy reads fly.toml and changes the app's machines to what it says: those
that there are get the new config, one after another, each only when the one
before is started and its checks pass. The first machine that does not get well
stops the deploy, and the rest stays as it was. The first deploy makes the app
if there is none, and for each process group a machine with its volumes; 'drover
scale count' makes more.

A release_command runs before all that in a machine of its own, with the new
image, the environment and the secrets. What it writes is shown; unless it ends
with exit code 0, nothing is changed.

The file's app, primary_region, build.image, env, processes, vm, mounts,
services, http_service, checks, restart, kill_signal, kill_timeout, metrics and
deploy (strategy, max_unavailable, wait_timeout, release_command,
release_command_timeout, release_command_vm) count. What else it says is named
with its line and refused; --ignore-unsupported goes on without it.
Images are not built: push one to a registry and name it. Machines that were
not made by a deploy are left alone.

A deploy runs in the fleet: Ctrl-C ends the following, not the deploy.
'drover deploy follow' follows it again, 'drover deploy abort' ends it.`,
		Example: "  drover deploy --image registry.example/ledger:2\n  drover deploy -c staging.toml --dry-run\n  drover deploy follow",
	}, newDeployListCommand(c), newDeployShowCommand(c), newDeployFollowCommand(c), newDeployAbortCommand(c))
	refuse := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return refuse(cmd, args)
		}
		return c.deploy(cmd.Context(), cmd, f)
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", appFileName, "file that describes the app")
	flags.StringVarP(&f.app, "app", "a", "", "app to deploy (default the file's, else DROVER_APP)")
	flags.StringVar(&f.org, "org", "", "organization that owns the app, if it is created (default that of the token)")
	flags.StringVarP(&f.image, "image", "i", "", "image (default the file's build.image)")
	flags.StringVarP(&f.region, "region", "r", "", "region of new machines and volumes (default the file's primary_region)")
	flags.StringVar(&f.strategy, "strategy", "", "rolling or immediate (default the file's, else rolling)")
	flags.IntVar(&f.maxUnavailable, "max-unavailable", 0, "how many machines are changed at once (default the file's, else 1)")
	flags.DurationVar(&f.waitTimeout, "wait-timeout", 0, "how long one machine may take to be well (default the file's, else 5m)")
	flags.BoolVar(&f.skipRelease, "skip-release-command", false, "do not run the file's release_command")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	flags.BoolVar(&f.ignoreUnsupported, "ignore-unsupported", false, "go on without what the file says and Drover does not have")
	flags.BoolVar(&f.dryRun, "dry-run", false, "tell what would be done and do nothing")
	flags.BoolVarP(&f.detach, "detach", "d", false, "do not follow; print the deploy's ID only")
	return cmd
}

// readFlyFile reads the file and refuses what is not supported.
func (c *cli) readFlyFile(f deployFlags) (flytoml.File, error) {
	data, err := os.ReadFile(f.config)
	if errors.Is(err, fs.ErrNotExist) {
		return flytoml.File{}, drover.Errorf(drover.NotFound, "there is no file %s here", f.config).WithHint("-c names another; docs/DEPLOY.md has an example")
	}
	if err != nil {
		return flytoml.File{}, drover.Errorf(drover.Invalid, "cannot read %s: %w", f.config, err)
	}
	file, unsupported, err := flytoml.Read(f.config, data)
	if err != nil {
		return file, err
	}
	if len(unsupported) == 0 {
		return file, nil
	}
	text := flytoml.Describe(f.config, unsupported)
	if f.ignoreUnsupported {
		fmt.Fprintf(c.stderr, "Ignored:\n%s\n", text)
		return file, nil
	}
	return file, drover.Errorf(drover.Invalid, "the file says what Drover does not have:\n%s", text).
		WithHint("remove it, or go on without it: --ignore-unsupported")
}

// deploy makes a plan, asks, and has it carried out.
func (c *cli) deploy(ctx context.Context, cmd *cobra.Command, f deployFlags) error {
	file, err := c.readFlyFile(f)
	if err != nil {
		return err
	}
	app := f.app
	if app == "" {
		app = file.App
	}
	if app == "" {
		app = c.getenv(envApp)
	}
	if app == "" {
		return usage(cmd, "no app is named: the file has none, --app and %s neither", envApp)
	}
	if f.region == "" {
		f.region = file.PrimaryRegion
	}
	cl, err := c.connect()
	if err != nil {
		return err
	}
	p := deployPlan{cli: c, cl: cl, app: drover.AppName(app), file: file, flags: f}
	if err := p.make(ctx); err != nil {
		return err
	}
	if f.dryRun && c.json {
		return c.printJSON(p.request())
	}
	if err := p.show(); err != nil || f.dryRun {
		return err
	}
	if what := p.grave(); what != "" {
		if err := c.confirm(ctx, f.yes, what); err != nil {
			return err
		}
	}
	if err := p.prepare(ctx); err != nil {
		return err
	}
	d, err := cl.CreateDeploy(ctx, p.app, p.request())
	if err != nil {
		return err
	}
	if f.detach {
		return c.printID(d.ID, d)
	}
	return c.followDeploy(ctx, cl, d)
}

// followDeploy follows a deploy to its end. One that did not do all that was asked is an error.
func (c *cli) followDeploy(ctx context.Context, cl *client.Client, begun apiv1.Deploy) error {
	d, err := c.watchDeploy(ctx, cl, begun)
	if err != nil {
		return err
	}
	if c.json {
		err = c.printJSON(d)
	} else {
		err = c.print("deploy %s of app %s is %s: %d of %d machines\n", d.ID, d.App, d.State, d.Count(drover.DeployItemDone), d.Machines())
	}
	if err != nil {
		return err
	}
	return deployOutcome(d)
}

// watchDeploy tells how a deploy goes on, until it has ended.
func (c *cli) watchDeploy(ctx context.Context, cl *client.Client, begun apiv1.Deploy) (apiv1.Deploy, error) {
	p := c.progress()
	seen := make([]drover.DeployItemState, len(begun.Items))
	command := commandLog{cli: c, cl: cl, app: begun.App}
	d, err := cl.FollowDeploy(ctx, begun.App, begun.ID, func(d apiv1.Deploy) error {
		for k, i := range d.Items {
			command.tell(ctx, p, i)
			if k < len(seen) && seen[k] != i.State {
				seen[k] = i.State
				c.tellDeployItem(p, i)
			}
		}
		if d.Ended() {
			return nil // whoever follows it tells the end
		}
		line := fmt.Sprintf("deploy %s: %s, %d of %d machines done", d.ID, d.State, d.Count(drover.DeployItemDone), d.Machines())
		if d.Waits != "" {
			line += ": " + d.Waits
		}
		p.state(string(d.State)+d.Waits, "%s", line)
		return nil
	})
	p.clear()
	if drover.Is(err, drover.Canceled) {
		return d, drover.Errorf(drover.Canceled, "stopped following deploy %s; it goes on by itself", begun.ID).
			WithHint("'drover deploy follow %[1]s -a %[2]s' follows it, 'drover deploy abort %[1]s -a %[2]s' ends it", begun.ID, begun.App)
	}
	return d, err
}

// deployOutcome is an error when a deploy that has ended did not do what was asked.
func deployOutcome(d apiv1.Deploy) error {
	switch {
	case d.Problem != nil:
		return d.Problem.WithHint("'drover deploy show %s -a %s' shows what is where; 'drover logs -a %s' what the machines say", d.ID, d.App, d.App)
	case d.State != drover.DeployDone:
		return drover.Errorf(drover.Canceled, "deploy %s was aborted: %s as before", d.ID, count(d.Count(drover.DeployItemLeft), "machine"))
	}
	return nil
}

// tellDeployItem prints a line for a machine that has come to another state worth one.
func (c *cli) tellDeployItem(p *progress, i drover.DeployItem) {
	done := map[drover.DeployAction]string{drover.DeployCreate: "is created and well", drover.DeployUpdate: "is updated and well",
		drover.DeployRestart: "is restarted and well", drover.DeployDestroy: "is destroyed",
		drover.DeployRun: "has run the release command"}
	switch i.State {
	case drover.DeployItemChanging:
		if i.Action == drover.DeployRun {
			p.line("machine %s runs the release command: %s", i.Called(), releaseCommand(i))
			return
		}
		p.line("machine %s: %s", i.Called(), i.Action)
	case drover.DeployItemDone:
		p.line("machine %s %s", i.Called(), done[i.Action])
	case drover.DeployItemFailed:
		p.line("machine %s has failed: %s", i.Called(), i.Reason)
	}
}
