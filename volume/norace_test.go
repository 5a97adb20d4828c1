//go:build !race

package volume

// raceEnabled tells tests that the race detector watches.
const raceEnabled = false
