package network

import (
	"context"
	"slices"
	"testing"
	"time"

	"drover"
	"drover/mesh"
)

// keyWorld is what a rotation meets: the fleet's record and the mesh. It cuts the process at one of what that does.
type keyWorld struct {
	fakeBus
	t              *testing.T
	clock          time.Time
	effects, cutAt int
	record         drover.HostIdentity
	// begun is the public key by which the host is reached too, looks how often was asked who sends by it since.
	begun string
	looks int
	// late are hosts that do not send by it, dead those of them from which nothing comes.
	late, dead []drover.HostID
	promoted   int
	// withdrawn: nothing is sent by it any more; waits is how often was asked who sends by it since.
	withdrawn bool
	waits     int
}

type cut struct{}

func (w *keyWorld) effect() {
	if w.effects++; w.effects == w.cutAt {
		panic(cut{})
	}
}

func (w *keyWorld) ClaimIdentity(ctx context.Context, want drover.HostIdentity) (drover.HostIdentity, error) {
	w.effect()
	got, err := w.fakeBus.ClaimIdentity(ctx, want)
	w.record = got
	w.effect()
	return got, err
}

func (w *keyWorld) BeginKey(next mesh.PrivateKey) error {
	w.effect()
	if w.begun != next.Public() {
		w.begun, w.looks = next.Public(), 0
	}
	return nil
}

func (w *keyWorld) Unconfirmed(time.Time) []drover.HostID {
	if w.looks++; w.looks < 3 {
		return append([]drover.HostID{"h2"}, w.late...)
	}
	return w.late
}

func (w *keyWorld) Promote(context.Context, bool) error {
	w.effect()
	if w.looks < 3 {
		w.t.Error("the old key is gone before all others send by the new one")
	}
	w.promoted++
	return nil
}

func (w *keyWorld) Withdraw(time.Time) {
	w.effect()
	if !w.withdrawn {
		w.withdrawn, w.waits = true, 0
	}
}

func (w *keyWorld) SendsByNext(time.Time) []drover.HostID {
	if w.begun == "" {
		return nil
	}
	if w.waits++; w.waits < 3 {
		return []drover.HostID{"h2"}
	}
	return nil
}

func (w *keyWorld) DropNext() {
	w.effect()
	if w.begun != "" && w.waits < 3 {
		w.t.Error("the next key is gone while others send by it")
	}
	w.begun, w.withdrawn = "", false
}

func (w *keyWorld) Links() []mesh.Link {
	links := []mesh.Link{{Host: "h2", State: mesh.LinkOK}}
	for _, h := range w.late {
		state := mesh.LinkOK
		if slices.Contains(w.dead, h) {
			state = mesh.LinkFromDead
		}
		links = append(links, mesh.Link{Host: h, State: state})
	}
	return links
}

// life is one process of the host. It ends when a rotation has, after so many steps at most, or when it is cut.
func (w *keyWorld) life(dir string, steps int, begin func(*Daemon)) (d *Daemon, ended bool) {
	d = newDaemon(w.t, dir, w)
	d.now, d.ends, d.feed.lists["hosts"] = func() time.Time { return w.clock }, w, w.clock
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(cut); !ok {
				panic(r)
			}
			w.begun, w.withdrawn = "", false // its ends are gone with it
		}
	}()
	if d.number() == 0 {
		if err := d.claim(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	if d.id.file.Claimed { // as open does
		if err := d.ends.BeginKey(d.id.next); err != nil {
			w.t.Fatal(err)
		}
		if d.id.file.Rotation.Canceled() {
			d.ends.Withdraw(w.clock)
		}
	}
	if !d.id.file.Rotation.Running() && begin != nil && d.id.file.KeyNumber == 0 {
		begin(d)
	}
	var steady time.Time
	for range steps {
		w.clock = w.clock.Add(time.Second)
		if err := d.beginDue(); err != nil {
			w.t.Fatal(err)
		}
		var err error
		if steady, err = d.rotateStep(w.t.Context(), steady); err != nil {
			w.t.Fatal(err)
		}
		if d.id.file.KeyNumber > 0 && d.id.told() {
			return d, true
		}
	}
	return d, false
}

func newKeyWorld(t *testing.T) *keyWorld {
	return &keyWorld{t: t, clock: time.Unix(1e9, 0).UTC(), fakeBus: fakeBus{number: 7}}
}

func byAnn(t *testing.T) func(*Daemon) {
	return func(d *Daemon) {
		if _, err := d.Rotate("ann", false); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARotationThatIsCutAnywhereGoesOn(t *testing.T) {
	for k := 1; ; k++ {
		w, dir := newKeyWorld(t), t.TempDir()
		w.cutAt = k
		first := newDaemon(t, dir, w).id.key.Public()
		var d *Daemon
		for range 3 {
			var ended bool
			if d, ended = w.life(dir, 20, byAnn(t)); ended {
				break
			}
		}
		f := d.id.file
		if f.KeyNumber != 1 || f.NextKey != "" || f.Rotation.Running() || f.Rotation.By != "ann" || d.id.key.Public() == first {
			t.Fatalf("cut at %d: %+v", k, f.Rotation)
		}
		if w.record.PublicKey != d.id.key.Public() || w.record.NextKey != "" || w.record.KeyNumber != 1 || w.record.Rotation.ID != f.Rotation.ID || w.record.Number != 7 {
			t.Errorf("cut at %d: the fleet knows %+v", k, w.record)
		}
		if m := d.id.mesh(); m.PeopleKey != first || m.PublicKey != d.id.key.Public() {
			t.Errorf("cut at %d: others are told %+v", k, m)
		}
		if again := newDaemon(t, dir, w); f.Version != identityVersion || again.id.key.Public() != d.id.key.Public() {
			t.Errorf("cut at %d: a program that knows one key only would take version %d for its own", k, f.Version)
		}
		if w.effects < k {
			if k < 5 {
				t.Errorf("a rotation has %d effects", k-1)
			}
			return
		}
	}
}

func TestARotationThatIsAskedForTwiceIsOne(t *testing.T) {
	w := newKeyWorld(t)
	w.late = []drover.HostID{"h9"}
	d, _ := w.life(t.TempDir(), 5, byAnn(t))
	again, err := d.Rotate("ben", true)
	if err != nil || again.Rotation.By != "ann" || again.Rotation.ID != d.id.file.Rotation.ID || !slices.Equal(again.WaitsFor, w.late) {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestAHostThatAnswersIsWaitedForAndASilentOneIsNot(t *testing.T) {
	w, dir := newKeyWorld(t), t.TempDir()
	w.late = []drover.HostID{"h3", "h9"}
	w.dead = []drover.HostID{"h9"}
	d, ended := w.life(dir, 100, byAnn(t))
	if waits := d.keyLocked().WaitsFor; ended || !slices.Equal(waits, []drover.HostID{"h3"}) {
		t.Fatalf("ended: %t, it waits for %v", ended, waits)
	}
	w.late = []drover.HostID{"h9"}
	if d, ended = w.life(dir, 100, nil); !ended {
		t.Fatalf("it waits for %v", d.keyLocked().WaitsFor)
	}
	if r := d.keyLocked().Rotation; !slices.Equal(r.Silent, []drover.HostID{"h9"}) || !slices.Equal(w.record.Rotation.Silent, r.Silent) {
		t.Errorf("not waited for: %v", r.Silent)
	}
}
