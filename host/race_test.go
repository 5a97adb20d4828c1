//go:build race

package host

// walkShare: the race detector makes everything many times slower, so of so many combinations only one is taken.
const walkShare = 6
