// Command drover-init is PID 1 of every guest: it makes a machine of a kernel and some disks, runs the machine's main process, and
// tells the host about it.
//
// It loads the kernel modules, reads the config disk, mounts root and volumes (checking file systems that met an error or were not unmounted,
// making one on a blank volume that may have one, and growing those whose disk has grown), sets up the network, and executes the main process. From then on it reaps
// processes, forwards signals, writes what the main process prints to the log port, makes the health checks, and answers requests on
// the agent port. When the main process ends, everything else is killed, everything is unmounted, and the VM is switched off.
//
// Package guest describes the other side. Invariants: nothing that is not blank is ever formatted; the main process is never
// started on less than all of its volumes; a report is written before what it reports can be lost; no wait is without bound.
//
// The time to the main process counts for every move of a machine, and an emulated CPU is slow: it imports little and does one
// thing after the other.
package main
