//go:build !race

package nbd

// raceEnabled tells tests that the race detector watches.
const raceEnabled = false
