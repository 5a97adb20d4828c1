package apitest

import (
	"context"

	"drover"
	"drover/fleet"
	"drover/waterfall"
)

// Metrics counts the migrations and the hosts that there are.
func (b *Backend) Metrics(context.Context) (fleet.Metrics, error) {
	if err := b.begin("Metrics"); err != nil {
		return fleet.Metrics{}, err
	}
	defer b.mu.Unlock()
	out := fleet.Metrics{Running: map[drover.Phase]int{}, Hosts: append([]drover.HostInfo(nil), b.hosts...)}
	var ended []drover.Migration
	for _, m := range b.migrations {
		if waterfall.Counts(m) {
			ended = append(ended, m)
		} else if !m.Ended() {
			out.Running[m.Phase]++
		}
	}
	out.Tally = waterfall.Tally{}.With(ended...)
	return out, nil
}
