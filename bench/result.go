package main

import "slices"

// result is one line of the outcome. Drover and Peer are medians of Runs runs each.
type result struct {
	Bench    string  `json:"bench"`
	Unit     string  `json:"unit"`
	Drover   float64 `json:"drover"`
	Peer     float64 `json:"peer"`
	PeerName string  `json:"peer_name"`
	// Ratio is Drover divided by Peer, or the median of the ratios of all rounds.
	Ratio  float64 `json:"ratio"`
	Better string  `json:"better"`
	Runs   int     `json:"runs"`
}

// compare makes a result of the runs of both sides. better is "higher" or "lower".
func compare(name, unit, better, peerName string, drover, peer []float64) result {
	d, p := median(drover), median(peer)
	return result{Bench: name, Unit: unit, Drover: d, Peer: p, PeerName: peerName, Ratio: d / p, Better: better, Runs: len(drover)}
}

// comparePairs is compare for sides that were measured in turn: the ratio is the median of those of each round, which what disturbs a shared machine
// disturbs on both sides.
func comparePairs(name, unit, better, peerName string, drover, peer []float64) result {
	r := compare(name, unit, better, peerName, drover, peer)
	ratios := make([]float64, min(len(drover), len(peer)))
	for i := range ratios {
		ratios[i] = drover[i] / peer[i]
	}
	r.Ratio = median(ratios)
	return r
}

func median(runs []float64) float64 {
	s := slices.Sorted(slices.Values(runs))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
