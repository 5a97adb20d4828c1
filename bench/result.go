package main

import "slices"

// result is one line of the outcome. Drover and Peer are medians of Runs runs each.
type result struct {
	Bench    string  `json:"bench"`
	Unit     string  `json:"unit"`
	Drover   float64 `json:"drover"`
	Peer     float64 `json:"peer"`
	PeerName string  `json:"peer_name"`
	// Ratio is Drover divided by Peer.
	Ratio  float64 `json:"ratio"`
	Better string  `json:"better"`
	Runs   int     `json:"runs"`
}

// compare makes a result of the runs of both sides. better is "higher" or "lower".
func compare(name, unit, better, peerName string, drover, peer []float64) result {
	d, p := median(drover), median(peer)
	return result{Bench: name, Unit: unit, Drover: d, Peer: p, PeerName: peerName, Ratio: d / p, Better: better, Runs: len(drover)}
}

func median(runs []float64) float64 {
	s := slices.Sorted(slices.Values(runs))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
