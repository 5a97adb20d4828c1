// Package dev runs a whole fleet on one Linux machine. Nothing in it is a mock: each host is a tree of the same processes that a
// server would run, with its own data directory, its own address and its own certificates.
//
// # What there is
//
//	drover dev rack        one process: power and network of the fleet. Ends with it: everything.
//	  drover dev host ID   one per host, the first process of it; starts the host's services and restarts them when they die
//	    drover serve ...   the services: storage and worker, or control
//
// The rack is what `up` starts and `down` ends. It listens on a socket in the fleet's directory; every other command asks it.
//
// # Modes
//
// In ModeNamespaces (root, or an ordinary user in a user namespace) the rack is the first process of a PID namespace and
// each host that of a nested one, so SIGKILL of a host's first process ends everything of that host at once, as a power
// cut does, and SIGKILL of the rack ends the fleet. A host has a network namespace with one link to the rack's bridge, and a
// mount namespace with a tmpfs on /run: what lives there is gone after a power cut. No namespace has a name; they live by their
// processes alone, so nothing of them can be left behind. A forward proxy on the bridge lets hosts reach registries.
//
// In ModeLoopback, where namespaces are not allowed, hosts have addresses in 127.0.0.0/8, a power cut is a freeze of the host's
// processes followed by SIGKILL, and links cannot be cut or slowed down. Up and Status say so.
//
// # Invariants
//
//   - Nothing is written outside the fleet's directory, and nothing is changed in the machine's own network.
//   - Every process of the fleet carries the directory in its environment or has a file in it open for writing, so that Down finds
//     what it must end even when the rack was killed.
//   - Down keeps data, run state apart: a fleet that is brought up again goes on where it was.
//   - Hosts that were killed stay off until they are started.
//
// It never decides anything about machines: it gives hosts power and a network, and takes them away.
package dev
