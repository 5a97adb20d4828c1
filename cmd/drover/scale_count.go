package main

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/flytoml"
)

// countFlags are those of 'drover scale count'.
type countFlags struct {
	app, group  string
	regions     []string
	perRegion   int
	yes, detach bool
	dryRun      bool
}

func newScaleCountCommand(c *cli) *cobra.Command {
	var f countFlags
	cmd := &cobra.Command{
		Use:   "count N | GROUP=N...",
		Short: "Set how many machines the process groups of an app have",
		Long: `Count brings a process group to N machines. New ones get the config that the
newest machine of the group has, and with each mount a volume of their own: one
of that name which no machine has, or a new one of the same size. Where there is
no machine of the group, the config is that of the last deploy which made one,
or of ./fly.toml.

With --region only the machines in those regions count, and new ones are dealt
out to them; without it, to the regions in which the group is. Of machines that
are too many, those go first that do not run, then the youngest of the region
that has the most. Their volumes stay.

It is a deploy: Ctrl-C ends the following only.`,
		Example: `  drover scale count 3 -a ledger
  drover scale count web=3 worker=1
  drover scale count 4 --process-group web --region ams,fra --max-per-region 2`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(cmd, "the number of machines is missing")
			}
			if f.perRegion < 0 {
				return usage(cmd, "--max-per-region is %d; expected 1 or more", f.perRegion)
			}
			return c.scaleCount(cmd, args, f)
		},
	}
	addDefaultApp(cmd, &f.app)
	flags := cmd.Flags()
	flags.StringVarP(&f.group, "process-group", "g", "", "process group (default the only one, or app)")
	flags.StringSliceVarP(&f.regions, "region", "r", nil, "count and make machines in these regions only")
	flags.IntVar(&f.perRegion, "max-per-region", 0, "make no more machines of a group in one region (default: no limit)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "tell what would be done and do nothing")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	flags.BoolVarP(&f.detach, "detach", "d", false, "do not follow; print the deploy's ID only")
	return cmd
}

// counts reads "N" and "GROUP=N".
func (s *scaled) counts(cmd *cobra.Command, args []string, group string) (map[string]int, error) {
	want := map[string]int{}
	for _, arg := range args {
		name, number, named := strings.Cut(arg, "=")
		if !named {
			number = arg
			if len(args) > 1 {
				return nil, usage(cmd, "%q names no process group; with several, each is GROUP=N", arg)
			}
			var err error
			if name, err = s.group(group); err != nil {
				return nil, err
			}
		} else if group != "" {
			return nil, usage(cmd, "%q and --process-group both name a process group", arg)
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || n > drover.MaxDeployItems {
			return nil, usage(cmd, "%q is no number of machines; expected 0 to %d", number, drover.MaxDeployItems)
		}
		if _, twice := want[name]; twice {
			return nil, usage(cmd, "the process group %q is named twice", name)
		}
		want[name] = n
	}
	return want, nil
}

// scaleCount makes a plan, asks, and has it carried out.
func (c *cli) scaleCount(cmd *cobra.Command, args []string, f countFlags) error {
	ctx := cmd.Context()
	s, err := c.scaledApp(ctx, f.app)
	if err != nil {
		return err
	}
	want, err := s.counts(cmd, args, f.group)
	if err != nil {
		return err
	}
	plan := scalePlan{scaled: s, flags: f}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if err := plan.add(ctx, name, want[name]); err != nil {
			return err
		}
	}
	if f.dryRun && c.json {
		return c.printJSON(plan.request())
	}
	if len(plan.items) == 0 {
		fmt.Fprintf(c.stderr, "App %s has that already; nothing is to be done.\n", s.app)
		return nil
	}
	w := c.stderr
	if f.dryRun {
		w = c.stdout
	}
	for _, i := range plan.items {
		fmt.Fprintln(w, i.text())
	}
	if f.dryRun {
		return nil
	}
	if gone := plan.count(drover.DeployDestroy); gone > 0 {
		if err := c.confirm(ctx, f.yes, fmt.Sprintf("destroy %s of app %s", count(gone, "machine"), s.app)); err != nil {
			return err
		}
	}
	if err := plan.makeVolumes(ctx); err != nil {
		return err
	}
	return s.begin(ctx, plan.request(), f.detach)
}

// scalePlan is what a change of counts is to do.
type scalePlan struct {
	*scaled
	flags   countFlags
	items   []plannedItem
	volumes []apiv1.Volume
	texts   []string
}

// text is how the plan shows an item.
func (i plannedItem) text() string {
	line := fmt.Sprintf("  %-8s  %s of the group %s", i.Action, drover.DeployItem{Machine: i.Machine, Name: i.Name}.Called(), i.Group)
	if i.Region != "" {
		line += " in " + string(i.Region)
	}
	if with := i.volumeTexts(); len(with) > 0 {
		line += ", with " + strings.Join(with, " and ")
	}
	return line
}

func (p *scalePlan) count(action drover.DeployAction) (n int) {
	for _, i := range p.items {
		if i.Action == action {
			n++
		}
	}
	return n
}

// request is what the fleet is asked. New machines make no others unavailable: all are made at once; those that are too many go when the new ones are well.
func (p *scalePlan) request() apiv1.DeployRequest {
	req := apiv1.DeployRequest{Text: "scale: " + strings.Join(p.texts, ", "), MaxUnavailable: max(1, len(p.items)), Items: []apiv1.DeployItemRequest{}}
	for _, i := range p.items {
		req.Items = append(req.Items, i.request())
	}
	return req
}

// add plans a process group.
func (p *scalePlan) add(ctx context.Context, group string, want int) error {
	var have []apiv1.Machine
	in := map[drover.Region]int{} // where machines may be, with how many there are
	for _, r := range p.flags.regions {
		in[drover.Region(r)] = 0
	}
	for _, m := range p.groups[group] {
		if _, counts := in[m.Region]; len(p.flags.regions) > 0 && !counts {
			continue
		}
		have = append(have, m)
		in[m.Region]++
	}
	p.texts = append(p.texts, fmt.Sprintf("%s %d to %d", group, len(have), want))
	if want < len(have) {
		p.fewer(group, have, in, len(have)-want)
		return nil
	}
	if want == len(have) {
		return nil
	}
	return p.more(ctx, group, in, want-len(have))
}

// fewer plans which machines go.
func (p *scalePlan) fewer(group string, have []apiv1.Machine, in map[drover.Region]int, n int) {
	idle := func(m apiv1.Machine) int {
		if m.State == drover.StateStarted && m.HostStatus == drover.HostOK {
			return 1
		}
		return 0
	}
	for range n {
		slices.SortFunc(have, func(a, b apiv1.Machine) int {
			return cmp.Or(idle(a)-idle(b), in[b.Region]-in[a.Region], b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
		})
		gone := have[0]
		have, in[gone.Region] = have[1:], in[gone.Region]-1
		p.items = append(p.items, plannedItem{DeployItemRequest: apiv1.DeployItemRequest{Action: drover.DeployDestroy, Machine: gone.ID, Name: gone.Name, Group: group,
			Region: gone.Region}})
	}
}

// more plans new machines, each where there are the fewest.
func (p *scalePlan) more(ctx context.Context, group string, in map[drover.Region]int, n int) error {
	model, err := p.model(ctx, group)
	if err != nil {
		return err
	}
	if p.volumes == nil && len(model.volumes) > 0 {
		if p.volumes, err = p.cl.Volumes(ctx, p.app); err != nil {
			return err
		}
	}
	if len(in) == 0 {
		in[model.region] = 0
	}
	for range n {
		regions := slices.Sorted(maps.Keys(in))
		slices.SortStableFunc(regions, func(a, b drover.Region) int { return in[a] - in[b] })
		region := regions[0]
		if p.flags.perRegion > 0 && in[region] >= p.flags.perRegion {
			return drover.Errorf(drover.Precondition, "group %s: with %d machines at most in each of %s there is no place for %d more", group, p.flags.perRegion,
				tallyText(regionCounts(in)), n).WithHint("name more regions with --region, or allow more with --max-per-region")
		}
		in[region]++
		config := model.config
		config.Mounts = nil
		item := plannedItem{DeployItemRequest: apiv1.DeployItemRequest{Action: drover.DeployCreate, Region: region, Group: group, Config: &config, Name: newMachineName(group)}}
		for _, wanted := range model.volumes {
			item.volumes = append(item.volumes, plannedVolume{Volume: wanted, id: freeVolume(p.volumes, wanted.Name, string(region), p.items, item)})
		}
		p.items = append(p.items, item)
	}
	return nil
}

func regionCounts(in map[drover.Region]int) map[string]int {
	out := map[string]int{}
	for r, n := range in {
		out[string(r)] = n
	}
	return out
}

// model is what a new machine of a group is made like.
type model struct {
	config  drover.MachineConfig
	volumes []flytoml.Volume
	region  drover.Region
}

// model finds what a new machine is made like: the newest machine of the group, the newest deploy that made one, or the file.
func (p *scalePlan) model(ctx context.Context, group string) (model, error) {
	if have := p.groups[group]; len(have) > 0 {
		newest := slices.MaxFunc(have, func(a, b apiv1.Machine) int { return a.CreatedAt.Compare(b.CreatedAt) })
		return p.like(ctx, newest.Config, newest.Region)
	}
	deploys, err := p.cl.Deploys(ctx, p.app)
	if err != nil {
		return model{}, err
	}
	for _, d := range deploys {
		for _, i := range d.Items {
			if i.Group == group && i.Config != nil && i.State == drover.DeployItemDone {
				return p.like(ctx, *i.Config, i.Region)
			}
		}
	}
	if m, ok, err := p.fromFile(group); ok || err != nil {
		return m, err
	}
	err = drover.Errorf(drover.NotFound, "app %q has no process group %q, and no deploy that made one is known", p.app, group)
	if names := p.names(); len(names) > 0 {
		return model{}, drover.AsError(err).WithHint("its groups are %s", strings.Join(names, ", "))
	}
	return model{}, drover.AsError(err).WithHint("'drover deploy' makes the first machine of a group")
}

// like is a model of a config that a machine has or had; its volumes are those that the new one gets its own of.
func (p *scalePlan) like(ctx context.Context, config drover.MachineConfig, region drover.Region) (model, error) {
	m := model{config: config, region: region}
	if len(config.Mounts) == 0 {
		return m, nil
	}
	var err error
	if p.volumes, err = p.cl.Volumes(ctx, p.app); err != nil {
		return m, err
	}
	for _, mount := range config.Mounts {
		v := flytoml.Volume{Name: mount.Name, Path: mount.Path, Size: drover.GiB}
		for _, there := range p.volumes {
			if there.ID == mount.Volume {
				retention := there.SnapshotRetention
				v.Name, v.Size, v.SnapshotRetention = there.Name, there.Size, &retention
			}
		}
		m.volumes = append(m.volumes, v)
	}
	return m, nil
}

// fromFile is the model of ./fly.toml, when it is of this app and has the group.
func (p *scalePlan) fromFile(group string) (m model, ok bool, err error) {
	if _, err := os.Stat(appFileName); err != nil {
		if os.IsNotExist(err) {
			return m, false, nil
		}
		return m, false, drover.Errorf(drover.Invalid, "cannot read %s: %w", appFileName, err.(*fs.PathError).Err)
	}
	file, err := p.readFlyFile(deployFlags{config: appFileName, ignoreUnsupported: true})
	if err != nil || file.App != string(p.app) || !slices.Contains(file.Groups(), group) || file.Build.Image == "" {
		return m, false, err
	}
	m.config, err = file.Config(group, "")
	m.volumes, m.region = file.Volumes(group), drover.Region(file.PrimaryRegion)
	return m, err == nil, err
}

// makeVolumes makes the volumes of new machines that are not there.
func (p *scalePlan) makeVolumes(ctx context.Context) error {
	for k := range p.items {
		if err := p.items[k].makeVolumes(ctx, p.cli, p.cl, p.app); err != nil {
			return err
		}
	}
	return nil
}
