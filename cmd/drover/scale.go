package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
	"drover/flytoml"
)

func newScaleCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "scale",
		Short: "How many machines an app has, and how large they are",
		Long: `Scale changes how many machines each process group of an app has, and their
size. It is about machines that a deploy has made; all others are left alone.

A change is a deploy: it runs in the fleet, Ctrl-C ends the following only, and
'drover deploy follow' and 'drover deploy abort' are for it too.`,
	}, newScaleShowCommand(c), newScaleCountCommand(c), newScaleVMCommand(c), newScaleMemoryCommand(c))
}

// scaled is an app as it is to be scaled: its machines by process group.
type scaled struct {
	*cli
	cl     *client.Client
	app    drover.AppName
	groups map[string][]apiv1.Machine
	apart  int
}

// scaledApp looks at an app.
func (c *cli) scaledApp(ctx context.Context, app string) (*scaled, error) {
	cl, name, err := c.inApp(app)
	if err != nil {
		return nil, err
	}
	machines, err := cl.Machines(ctx, name)
	if err != nil {
		return nil, err
	}
	s := &scaled{cli: c, cl: cl, app: name, groups: map[string][]apiv1.Machine{}}
	for _, m := range machines {
		switch group := groupOf(m); {
		case m.Goal == drover.GoalDestroyed, group == drover.ReleaseGroup:
		case group == "":
			s.apart++
		default:
			s.groups[group] = append(s.groups[group], m)
		}
	}
	return s, nil
}

// groupOf is the process group of a machine; empty for one that no deploy has made.
func groupOf(m apiv1.Machine) string { return m.Config.Metadata[drover.LabelProcessGroup] }

// group returns the process group that is meant where none is named: the only one, or "app".
func (s *scaled) group(named string) (string, error) {
	switch {
	case named != "":
		return named, nil
	case len(s.groups) == 1:
		return slices.Collect(maps.Keys(s.groups))[0], nil
	case len(s.groups) == 0 || s.groups[flytoml.DefaultGroup] != nil:
		return flytoml.DefaultGroup, nil
	}
	return "", drover.Errorf(drover.Invalid, "app %q has the process groups %s: which one?", s.app, strings.Join(s.names(), ", ")).
		WithHint("name it with --process-group")
}

func (s *scaled) names() []string { return slices.Sorted(maps.Keys(s.groups)) }

// begin has a deploy made of what is to be changed, and follows it.
func (s *scaled) begin(ctx context.Context, req apiv1.DeployRequest, detach bool) error {
	d, err := s.cl.CreateDeploy(ctx, s.app, req)
	if err != nil {
		return err
	}
	if detach {
		return s.printID(d.ID, d)
	}
	return s.followDeploy(ctx, s.cl, d)
}

// scaleLine is what 'scale show' tells of a process group.
type scaleLine struct {
	Group string `json:"process_group"`
	Count int    `json:"count"`
	machineSize
	Regions  map[string]int     `json:"regions"`
	States   map[string]int     `json:"states"`
	Machines []drover.MachineID `json:"machines"`
}

// machineSize is how large a machine is.
type machineSize struct {
	CPUKind  string `json:"cpu_kind"`
	CPUs     int    `json:"cpus"`
	MemoryMB int    `json:"memory_mb"`
}

func newScaleShowCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use: "show", Short: "Show how many machines each process group has, and how large they are", Args: exactly(),
		Example: "  drover scale show -a ledger\n  drover scale show --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := c.scaledApp(cmd.Context(), app)
			if err != nil {
				return err
			}
			lines := s.lines()
			if c.json {
				return c.printJSON(lines)
			}
			t := table{header: []string{"GROUP", "COUNT", "CPUS", "KIND", "MEMORY", "REGIONS", "STATES"}}
			for _, l := range lines {
				t.add(l.Group, l.Count, l.CPUs, l.CPUKind, sizeText(drover.Bytes(l.MemoryMB)*drover.MiB), tallyText(l.Regions), tallyText(l.States))
			}
			if err := c.printTable(t, "No machines that a deploy has made. 'drover deploy' makes some."); err != nil {
				return err
			}
			if s.apart > 0 {
				fmt.Fprintf(c.stderr, "%s besides, which no deploy has made: 'drover machine list -a %s'\n", count(s.apart, "machine"), s.app)
			}
			return nil
		},
	}
	addDefaultApp(cmd, &app)
	return cmd
}

// lines tells of each process group; its size is the one that most of its machines have.
func (s *scaled) lines() []scaleLine {
	lines := []scaleLine{}
	for _, name := range s.names() {
		l := scaleLine{Group: name, Regions: map[string]int{}, States: map[string]int{}}
		sizes := map[machineSize]int{}
		for _, m := range s.groups[name] {
			l.Count++
			l.Machines = append(l.Machines, m.ID)
			l.Regions[string(m.Region)]++
			l.States[string(m.State)]++
			size := machineSize{m.Config.Guest.CPUKind, m.Config.Guest.CPUs, m.Config.Guest.MemoryMB}
			if sizes[size]++; sizes[size] > sizes[l.machineSize] {
				l.machineSize = size
			}
		}
		lines = append(lines, l)
	}
	return lines
}

// tallyText writes how many there are of each, such as "ams 2, fra".
func tallyText(of map[string]int) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		text := name
		if of[name] > 1 || len(of) > 1 {
			text = fmt.Sprintf("%s %d", name, of[name])
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}
