// Package test tries Drover as its users do: a whole fleet of real processes and real virtual machines, the command line and
// nothing else, and faults from outside. What it asserts is what a user would notice.
//
// All tests share one fleet. Each makes an app of its own and removes it, and at the end the fleet must go down without a trace.
package test
