// Package netdev makes the Linux network devices that Drover needs: a tap device with a host route for each machine (Taps), and the
// bridges, veth pairs and namespaces of a development fleet (Namespace). Where taps are not allowed, User stands in for Taps and
// leaves a machine to its VMM's user networking; Choose finds out by trying.
//
// Taps works in the network namespace of its process. A tap is named after the machine and carries the machine's whole ID and address
// in its alias, so that what a dead process left can be found and removed. Everything may be repeated. It never touches a device that it
// did not make, never changes the host's own addresses and keeps nothing on disk.
//
// A Namespace lives only as long as the process that made it: it has no name in the file system, so nothing of it can be left.
package netdev
