package volume

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"drover"
	"drover/qemu"
)

// liveDriver makes a driver with a host's certificates.
func (v *guestVM) liveDriver(name, tlsDir string) *qemu.Driver {
	v.t.Helper()
	guest := must[string](v.t)(filepath.Abs("../build/guest"))
	d := must[*qemu.Driver](v.t)(qemu.New(v.t.Context(), qemu.Config{RunDir: filepath.Join(v.dir, name), GuestDir: guest, TLSDir: tlsDir,
		Accel: drover.AccelTCG, Log: testLog(v.t)}))
	v.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if vm, err := d.Find(ctx, vmID); err == nil {
			noErr(v.t, vm.Kill(ctx))
		}
		noErr(v.t, d.Close())
	})
	return d
}

// transfer waits for a state of a VM's transfer.
func (v *guestVM) transfer(vm *qemu.VM, want drover.VMTransferState) drover.VMTransfer {
	v.t.Helper()
	for {
		now := must[drover.VMTransfer](v.t)(vm.Transfer(v.t.Context()))
		switch now.State {
		case want:
			return now
		case drover.TransferFailed:
			v.t.Fatalf("the transfer failed: %+v", now)
		}
		select {
		case <-vm.Changes():
		case <-time.After(20 * time.Millisecond):
		case <-v.t.Context().Done():
			v.t.Fatal("the test ended")
		}
	}
}

// calm is a guest's script that writes a block now and then.
const calm = `
i=0
while [ $i -lt 900 ]; do
	if echo "0 $i" | dd of=/dev/vdc bs=4k count=1 seek=$i conv=sync,fsync 2>/dev/null; then echo "wrote 0 $i."; else echo "failed 0 $i"; fi
	i=$((i+1))
	sleep 0.1
done
`

// A guest moves between two storage daemons and two QEMUs while it runs: its memory over TLS, its disks by layers over those of the first.
func TestGuestMovesLiveToAnotherPool(t *testing.T) {
	ctx := t.Context()
	v := newGuestVM(t, drover.TransportVhost, calm)
	v.writers = 1
	other := newProcessHost(t, prepareHost(t, v.host.ca, "h2"))
	other.start()
	v.spec.Volumes = v.spec.Volumes[:1]
	v.d = v.liveDriver("from", v.host.cfg.TLSDir)
	vm := must[*qemu.VM](t)(v.d.Start(ctx, v.spec))
	v.await("wrote 0 2.")
	if why := must[string](t)(vm.LiveBlocker(ctx)); why != "" {
		t.Fatalf("it cannot move: %s", why)
	}

	ids := []drover.LayerID{drover.LayerID(drover.RootDisk(vmID)), "vol_0123456789abcdef"}
	spec := v.spec
	spec.Incoming, spec.Volumes = true, nil
	spec.AgentSocket = filepath.Join(v.dir, "agent2")
	for i, id := range ids {
		noErr(t, v.host.Export(ctx, id, "h2"))
		s := must[drover.LayerStatus](t)(v.host.Layer(ctx, id))
		other.clone(id+".m", &drover.Export{Disk: drover.DiskID(id), Layer: id, Size: s.Size, Host: "h1", Address: v.host.cfg.Listen, Name: string(id)}, "")
		a := must[drover.Attachment](t)(other.Prepare(ctx, id+".m", "m"))
		if i == 0 {
			spec.Root = must[drover.Attachment](t)(a.Over(drover.TransportVhost))
		} else {
			spec.Volumes = append(spec.Volumes, must[drover.Attachment](t)(a.Over(drover.TransportVhost)))
		}
	}
	d2 := v.liveDriver("to", other.cfg.TLSDir)
	to := must[*qemu.VM](t)(d2.Start(ctx, spec))
	address := must[string](t)(to.Listen(ctx, "127.0.0.1", "h1"))
	if again := must[string](t)(to.Listen(ctx, "127.0.0.1", "h1")); again != address {
		t.Errorf("it listens at %s, then at %s", address, again)
	}
	begin := time.Now()
	step := func(name string) { t.Logf("%8.1f ms %s", float64(time.Since(begin).Microseconds())/1000, name) }
	noErr(t, vm.Send(ctx, drover.VMSend{Address: address, Peer: "h2", Pause: 30 * time.Millisecond}))
	now := v.transfer(vm, drover.TransferPaused)
	step(fmt.Sprintf("paused at %v: %+v", now.PausedAt.Sub(begin), now.Memory))
	var wg sync.WaitGroup
	noErr(t, vm.Handover(ctx))
	for _, id := range ids {
		wg.Go(func() { must[drover.LayerStatus](t)(v.host.Freeze(ctx, id)) })
	}
	wg.Wait()
	step("frozen")
	v.transfer(vm, drover.TransferDone)
	step("all sent")
	v.transfer(to, drover.TransferDone)
	step("all there")
	for _, id := range ids {
		wg.Go(func() { must[drover.Attachment](t)(other.Open(ctx, id+".m", 2)) })
	}
	wg.Wait()
	step("open")
	noErr(t, to.Resume(ctx))
	step("resumed")
	noErr(t, vm.Kill(ctx))
	v.goesOn()
	for _, id := range ids {
		noErr(t, other.Hydrate(ctx, id+".m", 0))
		other.hydrated(id + ".m")
	}
	step("hydrated")
	v.goesOn()
	noErr(t, to.Kill(ctx))
	for n := range v.last(0) {
		got := make([]byte, 4096)
		noErr(t, other.dial("vol_0123456789abcdef.m").ReadAt(ctx, got, int64(n)*4096))
		if want := fmt.Sprintf("0 %d\n", n); string(got[:len(want)]) != want {
			t.Fatalf("block %d is %.20q", n, got)
		}
	}
}
