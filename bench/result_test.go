package main

import "testing"

func TestCompareTakesMedians(t *testing.T) {
	r := compare("b", "s", "lower", "peer", []float64{9, 1, 2}, []float64{4, 8, 1, 5})
	if r.Drover != 2 || r.Peer != 4.5 || r.Ratio != 2/4.5 || r.Runs != 3 {
		t.Fatalf("got %+v", r)
	}
}

func TestComparePairsTakesTheMedianOfRatios(t *testing.T) {
	r := comparePairs("b", "1/s", "higher", "peer", []float64{10, 100, 30}, []float64{5, 50, 60})
	if r.Drover != 30 || r.Peer != 50 || r.Ratio != 2 || r.Runs != 3 {
		t.Fatalf("got %+v", r)
	}
}

func TestGuestDisksAreComparedWithTheBetterPeer(t *testing.T) {
	var lines []guestLine
	for i, ops := range []float64{30, 20, 10, 15} {
		lines = append(lines, guestLine{Disk: guestDevice(i), Work: "w", Ops: ops, P99us: 1})
	}
	r := compareDisks(lines, []guestPeer{{name: "x"}, {name: "y"}})
	if len(r) != 4 || r[0].Ratio != 2 || r[0].PeerName != "qemu-storage-daemon y" || r[2].Bench != "guest.nbd.w" || r[2].Ratio != 20./15 {
		t.Fatalf("got %+v", r)
	}
}
