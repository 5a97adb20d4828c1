//go:build race

package host

// walkShare: the race detector makes everything many times slower, so of so many combinations only one is taken.
const walkShare = 6

// walkStride: of the steps of a walk that cuts at every one, as many are left out between two.
const walkStride = 3
