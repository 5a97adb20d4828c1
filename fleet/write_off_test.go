package fleet

import (
	"testing"

	"drover"
)

// The source of a move dies while the data is on the way. What had not come is given up on a person's word, whatever controller dies meanwhile, and is named in the record.
func TestALostSourceIsWrittenOff(t *testing.T) {
	for _, point := range []string{"", "fleet.move.write-off.before", "fleet.move.write-off.after", "fleet.write-off.begun"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w, n := newWorld(t)
			id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
			m := w.onTheWay(n, id, "h2")
			ask := WriteOff{Migration: m.ID, Actor: "eve", Reason: "it has burnt", Confirm: true}
			if _, err := n.WriteOffSource(t.Context(), ask); !drover.Is(err, drover.Precondition) {
				t.Fatalf("written off while it is heard: %v", err)
			}
			w.dead(n)
			if point != "" {
				n.kill()
				n = w.control("c1", killOnce(point))
				w.knownOff(n)
			}
			w.hosts["h2"].set(func() { w.hosts["h2"].moves[m.ID].left = 1 << 30 })
			told, err := n.WriteOffSource(t.Context(), WriteOff{Migration: m.ID})
			if err != nil || told.WriteOff != nil {
				t.Fatalf("%+v, %v", told, err)
			}
			if _, err := n.WriteOffSource(t.Context(), WriteOff{Migration: m.ID, Confirm: true}); !drover.Is(err, drover.Invalid) {
				t.Errorf("without a reason: %v", err)
			}
			if point != "" {
				go n.WriteOffSource(t.Context(), ask) //nolint:errcheck // it dies, or does not
				<-n.dead
				n.kill()
				n = w.control("c1", nil)
				w.knownOff(n)
			}
			for range 2 {
				if told, err = n.WriteOffSource(t.Context(), ask); err != nil || told.WriteOff == nil {
					t.Fatalf("%+v, %v", told, err)
				}
			}
			w.eventually("it is written off", func() bool {
				m, err = n.Migration(t.Context(), m.ID)
				return err == nil && m.WriteOff != nil && !m.WriteOff.DoneAt.IsZero() && hydrated(m)
			})
			wo := m.WriteOff
			if wo.Actor != "eve" || wo.Reason != "it has burnt" || len(wo.Disks) != 1 || wo.Disks[0].Lost != drover.BlockSize || len(wo.Disks[0].Holes) != 1 {
				t.Errorf("%+v", wo)
			}
			w.checkOwner(n, id, "h2", true)
			// Nothing holds the machine any more: it can move on. The source lets go when it is back.
			w.cutOff("h1", false)
			w.hosts["h1"].start()
			if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded {
				t.Errorf("%s: %v", m.Outcome, m.Problem)
			}
		})
	}
}
