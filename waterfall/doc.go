// Package waterfall makes drawings and sums out of the records of migrations: what took how long, of one migration or of many on one time axis
// (Of, OfMany), as text for a terminal (Text) and as SVG (SVG), and which phase is the slowest over the moves of a fleet (Phases).
//
// It is pure: it reads no clock, does no I/O and changes no record. It takes every record for what it may be: without an end, without times, with
// the clocks of hosts that do not agree. What is drawn then is never negative and never wider than the axis.
package waterfall
