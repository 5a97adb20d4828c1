// Package simhost runs the real host agent with a simulated VMM, storage daemon and image store, all in memory: what a fleet of many hosts costs its
// control side and its agents can be measured on one machine. Its machines have no volumes, start at once, and never end by themselves.
package simhost
