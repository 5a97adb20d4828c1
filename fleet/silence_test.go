package fleet

import (
	"sync"
	"testing"

	"drover"
)

// haltAt makes a host vanish when it gets an order, before or after it is carried out. It may be called for one order at a time.
func (w *world) haltAt(host drover.HostID, order drover.Order, done bool) (gone <-chan struct{}) {
	h := w.hosts[host]
	ch := make(chan struct{})
	var once sync.Once
	h.set(func() {
		h.fail = func(o drover.Order) (error, bool) {
			if o != order {
				return nil, false
			}
			once.Do(func() {
				go func() {
					h.halt()
					close(ch)
				}()
			})
			return drover.Errorf(drover.Unavailable, "the power went out"), done
		}
	})
	return ch
}

// revive brings a host back that was halted.
func (w *world) revive(host drover.HostID) {
	h := w.hosts[host]
	h.failing("", false)
	h.start()
	w.t.Cleanup(h.stop)
}

// TestAHostThatVanishesBeforeTheSwitchLeavesTheMachineOnTheSource cuts off the host of every order before the switch.
func TestAHostThatVanishesBeforeTheSwitchLeavesTheMachineOnTheSource(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		order drover.Order
		host  drover.HostID
		done  bool
	}{
		{drover.OrderMoveReserve, "h2", false},
		{drover.OrderMoveExport, "h1", true},
		{drover.OrderMoveClone, "h2", true},
		{drover.OrderMoveQuiesce, "h1", true},
		{drover.OrderMoveFreeze, "h1", true},
	} {
		t.Run(string(tt.order), func(t *testing.T) {
			t.Parallel() // it waits for the silence of a host
			w, n := newWorld(t)
			id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
			gone := w.haltAt(tt.host, tt.order, tt.done)
			m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2"})
			if err != nil {
				t.Fatal(err)
			}
			<-gone
			if tt.host == "h2" {
				// The target is not needed for the end.
				if m = w.ended(n, m.ID); m.Outcome != drover.Aborted {
					t.Fatalf("%s: %v", m.Outcome, m.Problem)
				}
				w.checkOwner(n, id, "h1", true)
				if _, err := n.RestartMachine(t.Context(), "shop", id, drover.StopConfig{}); err != nil {
					t.Fatalf("the machine is not free: %v", err)
				}
				w.revive("h2")
			} else {
				w.eventually("it is being aborted", func() bool {
					m, err = n.Migration(t.Context(), m.ID)
					return err == nil && m.Outcome == drover.Aborting && m.Steps[len(m.Steps)-1].Waited != ""
				})
				_, err := n.RestartMachine(t.Context(), "shop", id, drover.StopConfig{})
				wantError(t, err, drover.Conflict, "", "")
				w.revive("h1")
				if m = w.ended(n, m.ID); m.Outcome != drover.Aborted {
					t.Fatalf("%s: %v", m.Outcome, m.Problem)
				}
			}
			w.checkOwner(n, id, "h1", true)
			w.checkLayers("h2")
			w.eventually("the target has confirmed", func() bool {
				m, err = n.Migration(t.Context(), m.ID)
				return err == nil && len(m.Undone) == 2
			})
		})
	}
}

// TestAHostThatVanishesAfterTheSwitchIsWaitedFor cuts off the host of every order after the switch.
func TestAHostThatVanishesAfterTheSwitchIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		order drover.Order
		host  drover.HostID
		done  bool
	}{
		{drover.OrderMoveActivate, "h2", false},
		{drover.OrderMoveActivate, "h2", true},
		{drover.OrderMoveProgress, "h2", true},
		{drover.OrderMoveRelease, "h1", false},
	} {
		t.Run(string(tt.order), func(t *testing.T) {
			t.Parallel() // it waits for the silence of a host
			w, n := newWorld(t)
			id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
			gone := w.haltAt(tt.host, tt.order, tt.done)
			m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2"})
			if err != nil {
				t.Fatal(err)
			}
			<-gone
			w.eventually("the record says what it waits for", func() bool {
				m, err = n.Migration(t.Context(), m.ID)
				return err == nil && m.Phase.Committed() && m.Problem != nil && m.Problem.Code == drover.Unavailable
			})
			_, err = n.AbortMigration(t.Context(), m.ID)
			wantError(t, err, drover.Precondition, "", "")
			w.revive(tt.host)
			if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded || m.Problem != nil {
				t.Fatalf("%s: %v", m.Outcome, m.Problem)
			}
			w.checkOwner(n, id, "h2", true)
			w.checkLayers("h1")
		})
	}
}

// TestARefusalBeforeTheSwitchAborts has each order refused by its host.
func TestARefusalBeforeTheSwitchAborts(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	for order, host := range map[drover.Order]drover.HostID{drover.OrderMoveReserve: "h2", drover.OrderMoveExport: "h1",
		drover.OrderMoveClone: "h2", drover.OrderMoveQuiesce: "h1", drover.OrderMoveFreeze: "h1"} {
		w.hosts[host].failing(drover.Exhausted, true, order)
		m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2"})
		if err != nil {
			t.Fatal(err)
		}
		if m = w.ended(n, m.ID); m.Outcome != drover.Aborted || m.Problem.Code != drover.Exhausted {
			t.Fatalf("%s: %s, %v", order, m.Outcome, m.Problem)
		}
		w.hosts[host].failing("", false)
		w.checkOwner(n, id, "h1", true)
		w.checkLayers("h2")
	}
}

// TestADeadHostsMachines looks at what can be done with machines whose host is away.
func TestADeadHostsMachines(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	vol := w.volume(n, "h1")
	doomed := w.machine(n, CreateMachine{Name: "doomed", Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}}).Machine.ID
	stopped := w.machine(n, CreateMachine{Name: "stopped", Host: "h1"}).Machine.ID
	w.hosts["h1"].halt()
	v, err := n.StopMachine(ctx, "shop", stopped, drover.StopConfig{})
	if err != nil || v.HostStatus != drover.HostUnreachable {
		t.Fatalf("%+v, %v", v, err)
	}
	if err := n.DestroyMachine(ctx, "shop", doomed, true); err != nil {
		t.Fatal(err)
	}
	if v, err := n.Machine(ctx, "shop", doomed); err != nil || v.Status.State != drover.StateDestroying {
		t.Fatalf("%+v, %v", v, err)
	}
	w.eventually("h1 is unreachable", func() bool {
		h, err := n.Host(ctx, "h1")
		return err == nil && h.Status == drover.HostUnreachable
	})
	_, err = n.MoveMachine(ctx, Move{Machine: stopped, Target: "h2"})
	wantError(t, err, drover.Unavailable, "", "")
	_, err = n.CreateMachine(ctx, CreateMachine{App: "shop", Host: "h1", Config: drover.MachineConfig{Image: "busybox"}})
	wantError(t, err, drover.Unavailable, "host", "")
	w.machine(n, CreateMachine{Name: "doomed", Host: "h2"}) // the name is free at once

	w.revive("h1")
	if _, err := n.WaitMachine(ctx, "shop", doomed, drover.StateDestroyed, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := n.WaitMachine(ctx, "shop", stopped, drover.StateStopped, ""); err != nil {
		t.Fatal(err)
	}
	if got, err := n.Volume(ctx, "shop", vol.Volume.ID); err != nil || got.Volume.Machine != "" {
		t.Fatalf("%+v, %v", got, err)
	}
}
