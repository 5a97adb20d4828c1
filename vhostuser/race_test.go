//go:build race

package vhostuser

// raceEnabled tells tests that the race detector watches.
const raceEnabled = true
