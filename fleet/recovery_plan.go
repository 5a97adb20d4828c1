package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"drover"
	"drover/migrate"
)

// RecoveryPlan tells what can be done for the machines of a host, from what is known now. It changes nothing.
func (f *Fleet) RecoveryPlan(ctx context.Context, host drover.HostID) (drover.RecoveryPlan, error) {
	info, err := f.Host(ctx, host)
	if err != nil {
		return drover.RecoveryPlan{}, err
	}
	plan := drover.RecoveryPlan{Host: host, Reach: info.Reach, Text: info.ReachText, Machines: []drover.PlannedRecovery{}, AsOf: f.now().UTC()}
	fence, err := f.certain(ctx, host)
	switch {
	case err == nil:
		plan.Fence = &fence
	case drover.Is(err, drover.Precondition):
		plan.Text = cmp.Or(plan.Text, drover.AsError(err).Text)
	default:
		return plan, err
	}
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	for id := range f.state.placedOn[host] {
		if m, ok := f.state.machines.items[id]; ok && m.value.Goal != drover.GoalDestroyed {
			plan.Machines = append(plan.Machines, f.planLocked(m.value, host))
		}
	}
	for _, v := range f.state.volumes.items {
		if v := v.value; v.Machine == "" && v.Host == host && v.State != drover.VolumeDestroyed && v.State != drover.VolumeDestroying {
			plan.Volumes = append(plan.Volumes, f.sourceLocked(v, host, ""))
		}
	}
	slices.SortFunc(plan.Machines, func(a, b drover.PlannedRecovery) int {
		return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Machine, b.Machine))
	})
	slices.SortFunc(plan.Volumes, func(a, b drover.RecoverySource) int { return cmp.Compare(a.Volume, b.Volume) })
	return plan, nil
}

// planLocked finds the copies of a machine's volumes.
func (f *Fleet) planLocked(m drover.Machine, host drover.HostID) drover.PlannedRecovery {
	app := f.state.apps.items[string(m.App)].value
	p := drover.PlannedRecovery{Machine: m.ID, Name: m.Name, App: m.App, Automatic: app.Recovery == drover.RecoverAutomatic}
	for _, i := range f.state.recoveries.items {
		if r := i.value; r.Machine == m.ID && !r.State.Ended() {
			p.Recovery = r.ID
		}
	}
	if mig := f.state.moveLocked(m.ID); mig != nil && migrate.Holds(*mig) {
		if mig.Phase.Committed() || mig.Committing {
			p.Problem = fmt.Sprintf("migration %s has switched it here and is not through: host %s still has a copy from before (drover migration undo %s)", mig.ID, mig.Source, mig.ID)
		} else if mig.Outcome == drover.Running {
			p.Problem = fmt.Sprintf("migration %s is under way: abort it first (drover migration abort %s)", mig.ID, mig.ID)
		}
	}
	// A machine's volumes are on one host, so standbys serve only where all of them have one there. Hosts with fresher copies first.
	at := f.standbyHostLocked(m, host)
	for _, mount := range m.Config.Mounts {
		v, ok := f.state.volumes.items[string(mount.Volume)]
		if !ok {
			continue
		}
		src := f.sourceLocked(v.value, host, at)
		if src.Kind == drover.FromNothing && p.Problem == "" {
			p.Problem = fmt.Sprintf("volume %s has neither a standby nor a snapshot: there is no copy of it outside host %s", v.value.ID, host)
		}
		p.Sources = append(p.Sources, src)
	}
	return p
}

// standbyHostLocked returns the host that has a whole standby of every volume of the machine and answers; empty for none.
func (f *Fleet) standbyHostLocked(m drover.Machine, dead drover.HostID) drover.HostID {
	count := map[drover.HostID]int{}
	for _, mount := range m.Config.Mounts {
		had := map[drover.HostID]bool{}
		for _, i := range f.state.standbys.items {
			s := i.value
			if s.Volume == mount.Volume && s.Complete > 0 && s.State != drover.StandbyDeleting && s.Host != dead && !had[s.Host] &&
				f.hostStatusLocked(s.Host) == drover.HostOK {
				had[s.Host] = true
				count[s.Host]++
			}
		}
	}
	var best drover.HostID
	for host, n := range count {
		if n == len(m.Config.Mounts) && (best == "" || host < best) {
			best = host
		}
	}
	return best
}

// sourceLocked finds the newest copy of a volume that is not on the dead host: a standby on the host at if that is not empty, else the
// newest snapshot, unless that is newer.
func (f *Fleet) sourceLocked(v drover.Volume, dead, at drover.HostID) drover.RecoverySource {
	src := drover.RecoverySource{Volume: v.ID, Name: v.Name, Kind: drover.FromNothing}
	if at != "" {
		for _, i := range f.state.standbys.items {
			s := i.value
			if s.Volume == v.ID && s.Host == at && s.Complete > 0 && s.State != drover.StandbyDeleting && s.CompleteAt.After(src.At) {
				src.Kind, src.Standby, src.Host, src.At, src.Size = drover.FromStandby, s.ID, s.Host, s.CompleteAt, s.CompleteSize
			}
		}
		return src
	}
	for _, s := range f.snapshotsLocked(f.state.snapsOf[v.ID]) {
		if s.State == drover.SnapshotCreated && s.TakenAt.After(src.At) {
			src.Kind, src.At, src.Size = drover.FromSnapshot, s.TakenAt, s.Size
			src.Snapshot = &drover.SnapshotSource{Snapshot: s.ID, Volume: s.Volume, Manifest: s.Manifest, Size: s.Size, Data: s.Data}
		}
	}
	return src
}
