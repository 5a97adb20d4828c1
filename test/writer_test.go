package test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"drover"
	"drover/apiv1"
	"drover/internal/testkit"
)

// writer is a machine that runs the demo's writer on a volume, watched from outside.
type writer struct {
	id     drover.MachineID
	volume drover.VolumeID
	*testkit.Watch
}

// newWriter makes one on a host, with a new volume, and waits until it has acknowledged something.
func newWriter(t *testing.T, app string, host drover.HostID) *writer {
	t.Helper()
	v := ask[apiv1.Volume](t, "volume", "create", "records", "--app", app, "--host", string(host), "--size", "1GiB")
	w := writerOn(t, app, v.ID)
	eventually(t, boundBoot, "the first block", func() bool { return w.Now().Filled > 0 })
	return w
}

// writerOn makes one with a volume that is there, and waits until it has acknowledged something.
func writerOn(t *testing.T, app string, volume drover.VolumeID) *writer {
	t.Helper()
	m := ask[apiv1.Machine](t, "machine", "create", "oci:"+fleet.writerImage, "--app", app, "--memory", "128", "--volume", string(volume)+":/data")
	w := &writer{m.ID, volume, testkit.NewWatch(fleet.cli.Dir, string(m.ID))}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	eventually(t, boundBoot, "the first acknowledgement", func() bool { return w.Now().Acked > 0 })
	return w
}

// goesOn waits until the machine acknowledges something that it had not at the call.
func (w *writer) goesOn(t *testing.T) {
	t.Helper()
	before := w.Now().Acked
	eventually(t, boundBoot, "another acknowledgement", func() bool { return w.Now().Acked > before })
}

// comesBack waits until the machine speaks in another run than the one named.
func (w *writer) comesBack(t *testing.T, before string) {
	t.Helper()
	eventually(t, boundBoot, "the machine's return", func() bool { return w.Now().Boot != before })
}

// intact reads everything back inside the machine and compares it with what was acknowledged outside.
func (w *writer) intact(t *testing.T) {
	t.Helper()
	outside := w.Now()
	r := w.verify(t)
	if r.Records < outside.Acked || r.Blocks < outside.Filled {
		t.Errorf("lost: %d records and %d blocks were acknowledged, %d and %d are there", outside.Acked, outside.Filled, r.Records, r.Blocks)
	}
	if r.BadRecords+r.BadBlocks != 0 || len(outside.Corrupt) != 0 {
		t.Errorf("corrupt: %d records, %d blocks, %v", r.BadRecords, r.BadBlocks, outside.Corrupt)
	}
	if outside.Lost != 0 {
		t.Errorf("lost: %d acknowledged records were not found by a later run", outside.Lost)
	}
	if outside.TwoRunners != 0 {
		t.Errorf("ran in two places %d times", outside.TwoRunners)
	}
	if outside.Err != nil {
		t.Error(outside.Err)
	}
}

// verified is what the machine finds on its volume.
type verified struct {
	Records    uint64 `json:"records"`
	BadRecords uint64 `json:"bad_records"`
	Blocks     uint64 `json:"blocks"`
	BadBlocks  uint64 `json:"bad_blocks"`
}

// verify reads everything back inside the machine.
func (w *writer) verify(t *testing.T) (r verified) {
	t.Helper()
	// After the death of a control host it takes a moment until it has heard of every host again.
	eventually(t, boundBoot, "exec", func() bool {
		return fleet.cli.Ask(t.Context(), nil, "machine", "exec", string(w.id), "--", "true") == nil
	})
	printed := inside(t, w.id, "/writer", "verify")
	if err := json.Unmarshal([]byte(strings.TrimSpace(printed)), &r); err != nil {
		t.Fatalf("verify printed %q: %v", printed, err)
	}
	return r
}
