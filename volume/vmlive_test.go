package volume

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
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

// calm is a guest's script that writes a block now and then, and changes some MiB of its memory all the time: whatever it finds there that it has not
// put there, it tells.
const calm = `
awk 'BEGIN { for (n = 1; ; n++) {
	for (i = 0; i < 4000; i++) {
		if (n > 1 && (a[i] != (n-1)*7 + i || b[i] != a[i] "x" i)) { print "memory damaged at " i " in round " n; exit }
		a[i] = n*7 + i; b[i] = a[i] "x" i
	}
	print "memory " n "."; fflush()
} }' &
i=0
while [ $i -lt 900 ]; do
	if echo "0 $i" | dd of=/dev/vdc bs=4k count=1 seek=$i conv=sync,fsync 2>/dev/null; then echo "wrote 0 $i."; else echo "failed 0 $i"; fi
	i=$((i+1))
	sleep 0.1
done
`

// liveMove is a guest between two storage daemons and two QEMUs.
type liveMove struct {
	*guestVM
	other *processHost
	ids   []drover.LayerID
	vm    *qemu.VM // on the source
	d2    *qemu.Driver
}

// newLiveMove starts the guest, and makes what the target needs before its VM.
func newLiveMove(t *testing.T) *liveMove {
	t.Helper()
	v := newGuestVM(t, drover.TransportVhost, calm)
	v.writers = 1
	v.spec.Volumes = v.spec.Volumes[:1]
	m := &liveMove{guestVM: v, other: newProcessHost(t, prepareHost(t, v.host.ca, "h2")),
		ids: []drover.LayerID{drover.LayerID(drover.RootDisk(vmID)), "vol_0123456789abcdef"}}
	m.other.start()
	v.d, m.d2 = v.liveDriver("from", v.host.cfg.TLSDir), v.liveDriver("to", m.other.cfg.TLSDir)
	m.vm = must[*qemu.VM](t)(v.d.Start(t.Context(), v.spec))
	v.await("wrote 0 2.")
	v.await("memory 2.")
	if why := must[string](t)(m.vm.LiveBlocker(t.Context())); why != "" {
		t.Fatalf("it cannot move: %s", why)
	}
	for _, id := range m.ids {
		noErr(t, v.host.Export(t.Context(), id, "h2"))
		s := must[drover.LayerStatus](t)(v.host.Layer(t.Context(), id))
		m.other.clone(id+".m", &drover.Export{Disk: drover.DiskID(id), Layer: id, Size: s.Size, Host: "h1", Address: v.host.cfg.Listen, Name: string(id)}, "")
	}
	return m
}

// receive starts a VM that waits on the target, and returns where.
func (m *liveMove) receive() (to *qemu.VM, address string) {
	m.t.Helper()
	ctx := m.t.Context()
	spec := m.spec
	spec.Incoming, spec.Volumes = true, nil
	spec.AgentSocket = filepath.Join(m.dir, "agent2")
	for i, id := range m.ids {
		at := must[drover.Attachment](m.t)(must[drover.Attachment](m.t)(m.other.Prepare(ctx, id+".m", "m")).Over(drover.TransportVhost))
		if i == 0 {
			spec.Root = at
		} else {
			spec.Volumes = append(spec.Volumes, at)
		}
	}
	to = must[*qemu.VM](m.t)(m.d2.Start(ctx, spec))
	address = must[string](m.t)(to.Listen(ctx, "127.0.0.1", "h1"))
	if again := must[string](m.t)(to.Listen(ctx, "127.0.0.1", "h1")); again != address {
		m.t.Errorf("it listens at %s, then at %s", address, again)
	}
	return to, address
}

// send begins to send, slowly when the test has something to do meanwhile.
func (m *liveMove) send(address string, bandwidth drover.Bytes) {
	m.t.Helper()
	noErr(m.t, m.vm.Send(m.t.Context(), drover.VMSend{Address: address, Peer: "h2", Pause: 30 * time.Millisecond, Bandwidth: bandwidth}))
}

// underWay waits until so much was sent in all.
func (m *liveMove) underWay(sent drover.Bytes) {
	m.t.Helper()
	for {
		now := must[drover.VMTransfer](m.t)(m.vm.Transfer(m.t.Context()))
		if now.State != drover.TransferActive || !now.Running {
			m.t.Fatalf("while it is copied: %+v", now)
		}
		if now.Memory.Transferred >= sent {
			return
		}
		m.pause()
	}
}

func (m *liveMove) pause() {
	select {
	case <-m.vm.Changes():
	case <-time.After(10 * time.Millisecond):
	}
}

// fails waits until the transfer is told to have failed.
func (m *liveMove) fails() drover.VMTransfer {
	m.t.Helper()
	for {
		now := must[drover.VMTransfer](m.t)(m.vm.Transfer(m.t.Context()))
		if now.State == drover.TransferFailed {
			return now
		}
		m.pause()
	}
}

// again replaces the agent of one side by a new one, which finds the VM.
func (m *liveMove) again(d **qemu.Driver, name, tlsDir string, vm **qemu.VM) {
	m.t.Helper()
	noErr(m.t, (*d).Close())
	*d = m.liveDriver(name, tlsDir)
	*vm = must[*qemu.VM](m.t)((*d).Find(m.t.Context(), vmID))
	m.listens(*vm)
}

// listens waits until the agent reaches QEMU.
func (m *liveMove) listens(vm *qemu.VM) {
	m.t.Helper()
	for {
		_, err := vm.Transfer(m.t.Context())
		if err == nil {
			return
		}
		if !drover.Is(err, drover.Unavailable) {
			m.t.Fatal(err)
		}
		m.pause()
	}
}

// counts waits until the guest has gone over its memory twice, and found it as it was.
func (m *liveMove) counts() {
	m.t.Helper()
	m.goesOn()
	round := strings.Count(m.console(), "memory ") + 3 // one that was begun meanwhile, and one
	m.await(fmt.Sprintf("memory %d.", round))
	if text := m.console(); strings.Contains(text, "damaged") {
		m.t.Fatalf("the guest has lost memory:\n%s", text)
	}
}

// switches is what follows the pause: the rest of the memory, the freeze, the opening.
func (m *liveMove) switches(to *qemu.VM) {
	m.t.Helper()
	t, ctx, begin := m.t, m.t.Context(), time.Now()
	step := func(name string) { t.Logf("%8.1f ms %s", float64(time.Since(begin).Microseconds())/1000, name) }
	m.transfer(m.vm, drover.TransferPaused)
	step("paused")
	var wg sync.WaitGroup
	for _, id := range m.ids {
		wg.Go(func() { must[drover.LayerStatus](t)(m.host.Freeze(ctx, id)) })
	}
	noErr(t, m.vm.Handover(ctx))
	step("all memory sent")
	wg.Wait()
	step("frozen")
	step(fmt.Sprintf("all sent: %+v", m.transfer(m.vm, drover.TransferDone).Memory))
	m.transfer(to, drover.TransferDone)
	step("all there")
	for _, id := range m.ids {
		wg.Go(func() { must[drover.Attachment](t)(m.other.Open(ctx, id+".m", 2)) })
	}
	wg.Wait()
	step("open")
	noErr(t, to.Resume(ctx))
	step("resumed")
	noErr(t, m.vm.Kill(ctx))
}

// A guest moves between two storage daemons and two QEMUs while it runs: its memory over TLS, its disks by layers over those of the first.
func TestGuestMovesLiveToAnotherPool(t *testing.T) {
	ctx := t.Context()
	m := newLiveMove(t)
	to, address := m.receive()
	m.send(address, 0)
	m.switches(to)
	m.counts()
	for _, id := range m.ids {
		noErr(t, m.other.Hydrate(ctx, id+".m", 0))
		m.other.hydrated(id + ".m")
	}
	m.counts()
	noErr(t, to.Kill(ctx))
	for n := range m.last(0) {
		got := make([]byte, 4096)
		noErr(t, m.other.dial("vol_0123456789abcdef.m").ReadAt(ctx, got, int64(n)*4096))
		if want := fmt.Sprintf("0 %d\n", n); string(got[:len(want)]) != want {
			t.Fatalf("block %d is %.20q", n, got)
		}
	}
}

// slow is a bandwidth at which the copying lasts.
const slow = 24 * drover.MiB

// Whatever ends while the memory is copied: the guest runs on where it is, and in the end, on the target, with all that it had in its memory.
func TestTheMemoryArrivesWhoeverEndsOnTheWay(t *testing.T) {
	ctx := t.Context()
	m := newLiveMove(t)

	// The target's VM ends while the memory is copied: the guest does not notice.
	to, address := m.receive()
	m.send(address, slow)
	m.underWay(2 * drover.MiB)
	noErr(t, to.Kill(ctx))
	if now := m.fails(); !now.Running || now.Reason == "" {
		t.Errorf("its target has ended: %+v", now)
	}
	noErr(t, m.vm.TakeBack(ctx))

	// The move is given up while the memory is copied.
	to, address = m.receive()
	m.send(address, slow)
	m.underWay(2 * drover.MiB)
	noErr(t, m.vm.TakeBack(ctx))
	if now := must[drover.VMTransfer](t)(m.vm.Transfer(ctx)); !now.Running {
		t.Errorf("given up: %+v", now)
	}

	// The same target can take it once more. It is given up when the guest stands still.
	m.send(address, 0)
	m.transfer(m.vm, drover.TransferPaused)
	noErr(t, m.vm.TakeBack(ctx))
	m.counts()
	noErr(t, to.Kill(ctx))

	// The target's VM ends when the guest stands still.
	to, address = m.receive()
	m.send(address, 0)
	m.transfer(m.vm, drover.TransferPaused)
	noErr(t, to.Kill(ctx))
	if err := m.vm.Handover(ctx); err == nil {
		m.fails()
	}
	noErr(t, m.vm.TakeBack(ctx))
	m.counts()

	// The agents of both sides are restarted while the memory is copied, and that of the source when the guest stands still.
	to, address = m.receive()
	m.send(address, slow)
	m.underWay(2 * drover.MiB)
	m.again(&m.d2, "to", m.other.cfg.TLSDir, &to)
	m.underWay(4 * drover.MiB)
	m.again(&m.d, "from", m.host.cfg.TLSDir, &m.vm)
	m.transfer(m.vm, drover.TransferPaused)
	m.again(&m.d, "from", m.host.cfg.TLSDir, &m.vm)
	m.switches(to)
	m.counts()
	for _, dir := range []string{"from", "to"} {
		for _, name := range []string{"send.json", "take.json"} {
			if left, err := filepath.Glob(filepath.Join(m.dir, dir, "*", name)); err != nil || len(left) != 0 {
				t.Errorf("left: %v %v", left, err)
			}
		}
	}
	noErr(t, to.Kill(ctx))
}
