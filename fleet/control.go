package fleet

import (
	"context"
	"sync"
	"time"

	"drover"
	"drover/migrate"
)

// control drives every migration that has not ended, each in a goroutine of its own, until ctx ends; all of them have ended when it returns.
func (f *Fleet) control(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	var mu sync.Mutex
	driven := map[drover.MigrationID]bool{}
	for {
		next := f.state.moved()
		for _, i := range f.state.migrations.all() {
			m := i.value
			mu.Lock()
			begin := !m.Ended() && !driven[m.ID]
			if begin {
				driven[m.ID] = true
			}
			mu.Unlock()
			if !begin {
				continue
			}
			group.Go(func() {
				defer func() {
					mu.Lock()
					defer mu.Unlock()
					delete(driven, m.ID)
				}()
				f.drive(ctx, m.ID)
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		case <-time.After(f.timing.Repair):
		}
	}
}

// drive drives one migration to its end, or until ctx ends or another controller is found at work on it.
func (f *Fleet) drive(ctx context.Context, id drover.MigrationID) {
	log := f.log.With("migration", id)
	for ctx.Err() == nil {
		mv := &mover{Fleet: f, log: log, key: string(id)}
		err := mv.run(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		log.Warn("migration is taken up again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(f.rules.RetryMost):
		}
	}
}

// FaultPoints names the places in a migration at which a fault can strike the controller: before and after each action of each phase.
func FaultPoints() []string {
	return bothSides("reserve", "export", "clone", "quiesce", "freeze", "commit", "switch", "start", "volumes", "hydrate", "done")
}

// VolumeFaultPoints names the places at which a fault can strike whoever makes, takes, fills, extends or removes volumes and snapshots: after
// each write and each order, before the next.
func VolumeFaultPoints() []string {
	return []string{
		"fleet.snapshot.record.after", "fleet.snapshot.taken.after", "fleet.snapshot.claim.after", "fleet.snapshot.uploaded.after",
		"fleet.snapshot.created.after", "fleet.snapshot.end.after", "fleet.snapshot.destroying.after", "fleet.snapshot.removed.after",
		"fleet.snapshot.gone.after", "fleet.snapshot.scheduled.after",
		"fleet.volume.record.after", "fleet.volume.fork.after", "fleet.volume.made.after", "fleet.volume.fork-end.after",
		"fleet.volume.grow.record.after", "fleet.volume.grow.order.after", "fleet.volume.limits.after", "fleet.volume.wipe.after",
		"fleet.volume.removed.after",
	}
}

// AbortFaultPoints names those of an abort.
func AbortFaultPoints() []string {
	return []string{"fleet.move.abort.before", "fleet.move.abort.after"}
}

// LateFaultPoints names those that a late switch has beside the others, LiveFaultPoints those of moving the memory, UndoFaultPoints that of an undo.
func LateFaultPoints() []string { return bothSides("begin-round", "round", "copy", "end-rounds") }

func LiveFaultPoints() []string { return bothSides("incoming", "live") }

func UndoFaultPoints() []string { return bothSides("undo") }

// InterruptFaultPoints names what an undo of a migration that is under way still has beside that; WithoutFaultPoints what one has whose source is off.
func InterruptFaultPoints() []string { return bothSides("stand-aside", "end-undone") }

func WithoutFaultPoints() []string { return bothSides("check-fence") }

func bothSides(names ...string) []string {
	var points []string
	for _, name := range names {
		points = append(points, "fleet.move."+name+".before", "fleet.move."+name+".after")
	}
	return points
}

// pointOf names the fault point of a decision; empty for what is done again and again.
func pointOf(d migrate.Decision) string {
	switch d.Kind {
	case migrate.Commit:
		return "commit"
	case migrate.BeginRound, migrate.EndRounds, migrate.StandAside, migrate.CheckFence, migrate.Withhold:
		return string(d.Kind)
	case migrate.Switch:
		return "switch"
	case migrate.WriteVolumes:
		return "volumes"
	case migrate.End:
		return "done"
	case migrate.Ask:
		switch d.Order {
		case drover.OrderMoveReserve:
			return "reserve"
		case drover.OrderMoveExport:
			return "export"
		case drover.OrderMoveClone:
			return "clone"
		case drover.OrderMoveRound:
			return "round"
		case drover.OrderMoveCopy:
			return "copy"
		case drover.OrderMoveIncoming:
			return "incoming"
		case drover.OrderMoveLive:
			return "live"
		case drover.OrderMoveUndo:
			return "undo"
		case drover.OrderMoveQuiesce:
			return "quiesce"
		case drover.OrderMoveFreeze:
			return "freeze"
		case drover.OrderMoveActivate:
			return "start"
		case drover.OrderMoveWriteOff:
			return "write-off"
		case drover.OrderMoveRelease:
			return "hydrate"
		case drover.OrderMoveAbort:
			return "abort"
		}
	}
	return ""
}
