package main

import "testing"

func TestCompareTakesMedians(t *testing.T) {
	r := compare("b", "s", "lower", "peer", []float64{9, 1, 2}, []float64{4, 8, 1, 5})
	if r.Drover != 2 || r.Peer != 4.5 || r.Ratio != 2/4.5 || r.Runs != 3 {
		t.Fatalf("got %+v", r)
	}
}
