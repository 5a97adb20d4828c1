// Command load runs inside a guest and measures disks from there: past the guest's page cache (O_DIRECT), with the kernel's asynchronous I/O,
// so that the requests in flight cost no threads on an emulated CPU.
//
//	load bench -runs N -time D DISK...   each workload on each disk in turn, N rounds, another disk first in each
//	load gap -time D DISK                random writes for D; the longest time between two completions
//
// Each result is one line of JSON on standard output:
//
//	{"disk":"/dev/vdc","work":"randread-1","run":0,"ops":3000.0,"mibps":11.7,"p99us":640}
//	{"disk":"/dev/vdc","work":"gap","run":0,"gapms":812.5,"count":40000}
//
// A line READY before the gap's writes begin tells the host when to begin what it wants to measure.
package main
