// Package drover holds the words of the system as Go types: machines, volumes, hosts, placements,
// migrations, their states and identities, the orders that a host accepts, and the one error type.
//
// It does no I/O, starts nothing, reads no clock and imports the standard library only, so that every
// other package can share these words without pulling in anything else.
package drover
