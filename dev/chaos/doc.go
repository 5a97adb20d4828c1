// Package chaos breaks a development fleet at random and checks what it must keep whatever breaks.
//
// A run makes a fleet of its own, lets machines with volumes run the demo's writer on it, and then does two things at once: it plays a plan of
// faults, moves, aborts and drains, and it watches from outside. When the time is over it mends everything, waits until the fleet has come
// to rest, compares what each volume holds with what was acknowledged, moves each machine once more, and looks for what was left over.
//
// # The plan
//
// PlanOf is a pure function of the options: the same seed and options give the same plan, so that a run that failed can be run again. What a
// fault hits can still differ, because the fleet is a real one: "kill the VM of machine 2" is decided by the plan, where that VM is by the fleet.
//
// # The checker
//
// It believes nobody. Acknowledgements are read from the files in which hosts keep the machines' output; running VMs are counted in the process
// table; sockets, taps, routes and files are looked for where the kernel shows them. Only layers, migrations and the like are asked of the
// product, each of the host that has them.
//
// It never repairs anything but what it broke itself. docs/CHAOS.md says what each number of the report counts.
package chaos
