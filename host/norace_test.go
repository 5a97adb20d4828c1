//go:build !race

package host

// walkShare: every combination of a walk is taken.
const walkShare = 1

// walkStride: a walk cuts at every step.
const walkStride = 1
