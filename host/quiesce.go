package host

import (
	"context"
	"fmt"
	"time"

	"drover"
)

const (
	// quiesceMost is how long a guest's file system may be frozen: the guest thaws it by itself then, whatever became of this host's
	// agent. quiesceWait bounds the way to the guest, which may be busy.
	quiesceMost = 5 * time.Second
	quiesceWait = 10 * time.Second
)

// quiesced is a guest whose file system is frozen. The zero value is a volume that nobody asked to quiesce.
type quiesced struct {
	guest  Guest
	volume drover.VolumeID
	asked  bool
	say    func(err error)
}

// quiesce freezes the file system of a volume in the guest that runs with it. Where none runs there is nothing to freeze.
func (a *Agent) quiesce(ctx context.Context, id drover.VolumeID, asked bool) (quiesced, error) {
	q := quiesced{volume: id, asked: asked}
	m, _ := a.mountedBy(id)
	if m != nil && m.rec.Load().Obs.Memory.whole() {
		q.asked = false // the guest has it mounted, and cannot be asked
	}
	if !asked || m == nil || !m.rec.Load().Obs.VM.Live {
		return q, nil
	}
	if !m.rec.Load().Obs.VM.MainStarted {
		return q, drover.Errorf(drover.Conflict, "volume %q cannot be quiesced while its machine %q is starting", id, m.id).
			WithHint("ask again in a moment, or without quiesce")
	}
	ctx, cancel := context.WithTimeout(ctx, quiesceWait)
	defer cancel()
	g, err := a.cfg.GuestDial(ctx, m.agentSocket())
	if err != nil {
		return q, fmt.Errorf("cannot quiesce volume %q: %w", id, err)
	}
	a.hit("host.quiesce-volume.before")
	if err := g.Freeze(ctx, id, quiesceMost); err != nil {
		g.Close() // nothing was frozen, or it thaws by itself
		return q, fmt.Errorf("cannot quiesce volume %q: %w", id, err)
	}
	a.hit("host.quiesce-volume.after")
	q.guest = g
	q.say = func(err error) {
		m.log.Warn("a quiesced guest went on too early, or cannot be told to", "volume", string(id), "err", err)
	}
	return q, nil
}

// letGo lets the guest go on. It tells whether nothing was written since the freeze.
func (q quiesced) letGo(ctx context.Context) bool {
	if q.guest == nil {
		return q.asked // no guest had it mounted
	}
	// The caller's context may have ended: the guest must be told all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), quiesceMost)
	defer cancel()
	err := q.guest.Thaw(ctx, q.volume)
	q.guest.Close() // the answer is here
	if err != nil {
		q.say(err)
		return false
	}
	return true
}
