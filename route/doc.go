// Package route knows where the machines of all networks are: it makes one table of placements, machines, their states, and hosts, in whatever order
// the news of them comes. What carries packets and what answers for names read it.
//
// It does no I/O and reads no clock: the same news always make the same table.
package route
