package vhostuser

import (
	"testing"

	"golang.org/x/sys/unix"

	"drover/vhostuser/vhosttest"
)

// TestAFrontendBeginsInTheMiddle is what QEMU does when its backend dies before the guest uses the disk: it goes on with the next one as if they had met.
func TestAFrontendBeginsInTheMiddle(t *testing.T) {
	r := newRig(t, vhosttest.NewFrontend(vhosttest.NewGuest(t, 16)), newDisk(1<<20), nil)
	r.Features = features(false) &^ vhosttest.LogAll
	r.EventIdx = r.Features&featEventIdx != 0
	if err := r.Send(vhosttest.SetFeatures, 0, vhosttest.U64(r.Features)); err != nil {
		t.Fatal(err)
	}
	r.Set(vhosttest.SetMemTable, vhosttest.MemTable(), r.FD(), r.FD()) // it waits for the answer
	r.TrackInflight()
	r.BeginRing(0, 0)
	wantStatus(t, r.Write(4096, pattern(1, 512)), vhosttest.OK)

	// It cannot be told of a change. So it has to begin anew, which it does at the beginning now.
	r.disk.change(func() { r.disk.data = append(r.disk.data, make([]byte, 1<<20)...) })
	if err := r.dev.Resize(2 << 20); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Receive(vhosttest.GetConfig); err == nil {
		t.Error("the connection goes on, and the guest never learns of its disk's size")
	}
}

// TestTheSizeIsToldWhenTheDiskIsUsed: it may have changed while there was no backend.
func TestTheSizeIsToldWhenTheDiskIsUsed(t *testing.T) {
	r := newRig(t, vhosttest.NewFrontend(vhosttest.NewGuest(t, 16)), newDisk(1<<20), nil)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	r.Hello()
	r.Set(vhosttest.SetBackendReqFD, nil, fds[1])
	if err := unix.Close(fds[1]); err != nil {
		t.Fatal(err)
	}
	r.Set(vhosttest.SetMemTable, vhosttest.MemTable(), r.FD(), r.FD())
	r.TrackInflight()
	r.BeginRing(0, 0)
	var b [64]byte
	n, err := unix.Read(fds[0], b[:])
	if err != nil || n != headerSize || order.Uint32(b[:]) != backendConfigChange {
		t.Errorf("told %x, %v", b[:n], err)
	}
}
