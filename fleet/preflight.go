package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"drover"
	"drover/migrate"
)

// checkBound is how long both hosts together may take to look at what they are asked to look at.
const checkBound = 10 * time.Second

// preflight looks at everything that can be known of a migration before the machine is touched.
type preflight struct {
	*Fleet
	req    Move
	v      MachineView
	p      drover.Placement
	source drover.HostInfo
	target drover.HostInfo
	disks  []drover.DiskMove
	// keptUntil is how long the target keeps what an undo needs; zero for as long as it is needed.
	keptUntil time.Time
	// damage says what of the machine's disks is known to be damaged; empty for nothing.
	damage string
	// off: the source of an undo is fenced. It is asked nothing.
	off bool
	// errs are what is against it, in the order in which it was found, as an error that a user gets when it is the only one.
	errs     []*drover.Error
	findings []drover.MoveFinding
}

// CheckMove tells all that is for and against a migration, and changes nothing. Errors are those of a machine that is not there, of a request that
// is wrong, and of a store that does not answer.
func (f *Fleet) CheckMove(ctx context.Context, req Move) (drover.MoveCheck, error) {
	c, err := f.preflight(ctx, req)
	if err != nil {
		return drover.MoveCheck{}, err
	}
	return c.result(), nil
}

func (f *Fleet) preflight(ctx context.Context, req Move) (*preflight, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	if err := checkMoveOptions(req.Options); err != nil {
		return nil, err
	}
	v, err := f.view(req.App, req.Machine)
	if err != nil {
		return nil, err
	}
	if v.Machine.Goal == drover.GoalDestroyed {
		return nil, drover.Errorf(drover.NotFound, "machine %q is %s", req.Machine, v.Status.State)
	}
	c := &preflight{Fleet: f, req: req, v: v}
	if c.p, err = f.state.placementOf(ctx, req.Machine); err != nil {
		return nil, err
	}
	c.source = f.hostInfo(c.p.Host)
	m, err := f.holder(ctx, req.Machine)
	if err != nil {
		return nil, err
	}
	if m != nil && !(req.undoes != nil && m.ID == req.undoes.ID) {
		c.against("state", moving(m))
	} else {
		c.found("state", "no migration is under way")
	}
	c.note("volumes", f.whole(ctx, v.Machine), "no volume is still being filled")
	well := c.lookAtDisks(ctx)
	c.chooseTarget(ctx, well && len(c.errs) == 0)
	if c.target.ID != "" {
		c.askHosts(ctx)
		c.compare()
	}
	return c, nil
}

// lookAtDisks asks the source what there is. The source of an undo may be off, if that is certain: its copy is given up.
func (c *preflight) lookAtDisks(ctx context.Context) bool {
	if c.req.undoes != nil && c.source.Status == drover.HostUnreachable {
		_, err := c.certain(ctx, c.p.Host)
		if err != nil {
			err = drover.Errorf(drover.CodeOf(err), "host %q does not answer, and may still run machine %q: %w", c.p.Host, c.req.Machine, err).
				WithHint("%s", drover.AsError(err).Hint)
		}
		c.off = err == nil
		c.note("source", err, fmt.Sprintf("host %s is fenced: nothing is asked of it", c.p.Host))
		for _, d := range c.req.undoes.Disks {
			if !d.Disk.HoldsMemory() {
				c.disks = append(c.disks, drover.DiskMove{Disk: d.Disk, Volume: d.Volume, Size: d.Size, Source: d.Target})
			}
		}
		return c.off
	}
	disks, damage, err := c.disksOf(ctx, c.v.Machine, c.p.Host)
	c.disks, c.damage = disks, damage
	if c.req.undoes != nil && drover.Is(err, drover.Unavailable) {
		err = drover.AsError(err).WithHint("if it is dead: wait until `drover host show %s` says unreachable, fence it (drover host fence %s --reason TEXT), and undo again",
			c.p.Host, c.p.Host)
	}
	c.note("source", err, fmt.Sprintf("%d disks on host %s", len(disks), c.p.Host))
	c.lookForDamage()
	return err == nil
}

func (f *Fleet) hostInfo(id drover.HostID) drover.HostInfo {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	info, _ := f.hostLocked(id)
	return info
}

// against notes what is against the migration, as seen from the control side.
func (c *preflight) against(check string, err error) {
	e := drover.AsError(err)
	c.errs = append(c.errs, e)
	c.findings = append(c.findings, drover.MoveFinding{Check: check, Text: e.Text, Hint: e.Hint})
}

func (c *preflight) found(check, text string) {
	c.findings = append(c.findings, drover.MoveFinding{Check: check, OK: true, Text: text})
}

func (c *preflight) note(check string, err error, text string) {
	if err != nil {
		c.against(check, err)
		return
	}
	c.found(check, text)
}

// chooseTarget finds the target. One that was named is looked at even when something else is against the migration.
func (c *preflight) chooseTarget(ctx context.Context, well bool) {
	if !well && c.req.Target == "" {
		return // hosts are chosen by what the disks hold
	}
	host, err := c.targetFor(ctx, c.req, c.v, c.p.Host, c.disks)
	if err != nil {
		c.against("target", err)
		if c.req.Target == c.p.Host {
			return
		}
		host = c.req.Target
	}
	if c.target = c.hostInfo(host); c.target.Status == drover.HostUnreachable || !slices.Contains(c.target.Roles, drover.RoleWorker) {
		c.target = drover.HostInfo{}
		return
	}
	if err == nil {
		c.found("target", fmt.Sprintf("host %s in region %s", host, c.target.Region))
	}
}

// askHosts lets both hosts look, at the same time.
func (c *preflight) askHosts(ctx context.Context) {
	volumes, err := c.volumesOf(ctx, c.v.Machine)
	if err != nil {
		c.against("volumes", err)
		return
	}
	req := drover.MoveCheckRequest{Machine: c.req.Machine, Source: c.p.Host, Target: c.target.ID, Spec: c.v.Machine, Volumes: volumes,
		Live: c.wantsLive(), At: c.now()}
	if c.req.undoes != nil {
		req.Undoes = c.req.undoes.ID
	}
	for _, d := range c.disks {
		if c.req.undoes == nil {
			req.Disk += d.Allocated
		}
	}
	var group sync.WaitGroup
	hosts := []drover.HostInfo{c.source, c.target}
	answers, failed := make([]drover.MoveChecked, 2), make([]error, 2)
	for i, h := range hosts {
		if h.Status == drover.HostUnreachable {
			continue // it was said before
		}
		req := req
		if req.Peer = hosts[1-i]; req.Undoes != "" && req.Peer.Status == drover.HostUnreachable {
			req.Peer = drover.HostInfo{} // nothing comes from it; whether it is certainly off was looked at
		}
		group.Go(func() { failed[i] = c.order(ctx, checkBound, h.ID, drover.OrderMoveCheck, req, &answers[i]) })
	}
	group.Wait()
	known := len(c.errs) > 0
	for i, h := range hosts {
		if failed[i] != nil && !(known && i == 0) {
			c.against("answer", fmt.Errorf("host %q cannot tell whether machine %q can be moved: %w", h.ID, c.req.Machine, failed[i]))
		}
		if until := answers[i].KeptUntil; !until.IsZero() {
			c.keptUntil = until
		}
		for _, f := range answers[i].Findings {
			c.take(f)
		}
	}
}

// take takes over what a host found, unless the control side has said the same.
func (c *preflight) take(f drover.MoveFinding) {
	f.Host = cmpHost(f.Host, c.target.ID)
	if !f.OK && !f.LiveOnly {
		e := drover.Errorf(codeOfCheck(f.Check), "%s", f.Text)
		if f.Hint != "" {
			e = e.WithHint("%s", f.Hint)
		}
		if slices.ContainsFunc(c.errs, func(o *drover.Error) bool {
			return o.Code == e.Code && (e.Code == drover.Exhausted || e.Code == drover.Conflict)
		}) {
			return
		}
		c.errs = append(c.errs, e)
	}
	c.findings = append(c.findings, f)
}

func cmpHost(a, b drover.HostID) drover.HostID {
	if a == "" {
		return b
	}
	return a
}

// codeOfCheck is what kind of refusal a check leads to.
func codeOfCheck(check string) drover.Code {
	switch check {
	case "memory", "cpus", "disk":
		return drover.Exhausted
	case "network", "key", "image", "answer":
		return drover.Unavailable
	case "machine":
		return drover.Conflict
	}
	return drover.Precondition
}

func (c *preflight) wantsLive() bool { return c.req.Options.Live || c.req.Options.LiveOrCold }

// compare looks at what the control side knows of both hosts. Processors and machine types the hosts compare themselves.
func (c *preflight) compare() {
	if c.target.Mark != nil {
		c.against("mark", drover.Errorf(drover.Precondition, "host %q is closed for machines by %s: %s", c.target.ID, c.target.Mark.Owner, c.target.Mark.Reason).
			WithHint("choose another host, or open it: drover host uncordon %s", c.target.ID))
	}
	c.compareSuspended()
	if !c.wantsLive() {
		return
	}
	switch {
	case c.v.Status.State == drover.StateSuspended:
		c.liveOnly("state", false, "the machine is suspended: its memory moves as one of its disks")
	case !runs(c.v):
		c.liveOnly("state", false, "the machine does not run: it has no memory to be moved")
	}
	switch {
	case c.source.Accel == "" || c.target.Accel == "":
		c.liveOnly("accel", true, "the accelerator is not known on both hosts")
	case c.source.Accel != c.target.Accel:
		c.liveOnly("accel", false, fmt.Sprintf("VMs run with %s on host %s, and with %s on host %s", c.source.Accel, c.source.ID, c.target.Accel, c.target.ID))
	}
}

func (c *preflight) liveOnly(check string, ok bool, text string) {
	f := drover.MoveFinding{Check: check, OK: ok, LiveOnly: true, Text: text}
	if !ok {
		f.Hint = "move it cold: leave --live out, or take --live-or-cold"
	}
	c.findings = append(c.findings, f)
}

// coldReason says why the memory cannot move; empty when it can.
func (c *preflight) coldReason() string {
	var why []string
	for _, f := range c.findings {
		if f.LiveOnly && !f.OK {
			why = append(why, f.Text)
		}
	}
	return strings.Join(why, "; ")
}

// refusal is why the migration is not begun; nil when it can be.
func (c *preflight) refusal() *drover.Error {
	errs := c.errs
	if why := c.coldReason(); why != "" && c.wantsLive() && !c.req.Options.LiveOrCold {
		errs = append(slices.Clone(errs), drover.Errorf(drover.Precondition, "machine %q cannot be moved with its memory: %s", c.req.Machine, why).
			WithField("live").WithHint("move it cold: leave --live out, or take --live-or-cold"))
	}
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	var texts []string
	for _, e := range errs {
		texts = append(texts, e.Text)
	}
	all := *errs[0]
	all.Text = strings.Join(texts, "; ")
	if c.req.undoes != nil && all.Hint != "" {
		return &all // a check would tell of a move, which is another matter
	}
	return all.WithHint("drover machine check-move %s lists everything that was looked at", c.req.Machine)
}

// migration is the record that the migration would begin with.
func (c *preflight) migration() drover.Migration {
	m := c.choices(c.req, c.undoing(drover.Migration{
		ID: drover.NewMigrationID(), Machine: c.req.Machine, App: c.v.Machine.App, Source: c.p.Host, Target: c.target.ID, Actor: c.req.Actor,
		FromEpoch: c.p.Epoch, WasRunning: runs(c.v) && c.v.Machine.Goal == drover.GoalStarted, Disks: c.disks, Options: c.req.Options, Drain: c.req.Drain,
	}))
	if why := c.coldReason(); why != "" && m.Live {
		m.Live, m.ColdReason = false, why
	}
	return migrate.Begin(m, c.now().UTC())
}

// undoing completes the record of a migration that takes another one back: the machine is to be as it was at that one's switch, and so to run if it
// did then.
func (c *preflight) undoing(m drover.Migration) drover.Migration {
	old := c.req.undoes
	if old == nil {
		return m
	}
	m.Undoes, m.Interrupts, m.SourceOff = old.ID, old.Outcome == drover.Running, c.off
	m.WasRunning = (runs(c.v) || old.WasRunning) && c.v.Machine.Goal == drover.GoalStarted
	for i, d := range m.Disks {
		m.Disks[i].Target = drover.LayerFor(d.Disk, m.ID)
	}
	return m
}

// result is what a check answers.
func (c *preflight) result() drover.MoveCheck {
	m := c.migration()
	out := drover.MoveCheck{Machine: m.Machine, Source: m.Source, Target: m.Target, Possible: c.refusal() == nil, Live: m.Live, ColdReason: m.ColdReason,
		Late: m.Late, SwitchReason: m.SwitchReason, Findings: c.findings}
	for _, d := range m.Disks {
		out.Copies += d.Allocated
	}
	return out
}
