// Package mesh carries packets between the machines of different hosts: WireGuard between hosts, and a table that says which host has which machine.
//
// A Device is a TUN device with WireGuard behind it. A packet for a machine of another host is put, as it is, behind a second IPv6 header from the
// one host's private address to the other's, and that is what WireGuard sees: it knows hosts, not machines. So a move changes one entry of a table
// here and nothing of WireGuard's, a packet that comes for a machine which has just left may be passed on by its old host, and the check of source
// addresses that WireGuard makes is that of hosts. Which machine may send from which address is for its own host to see to, at its tap.
//
// The device outlives the process: while that is away packets are lost, but routes and addresses stay. The package keeps nothing on disk, knows nothing
// of the fleet, and answers for no machine: what it does not know, it drops and counts.
//
// A Prober finds out which hosts are reached, over the very path that machines' packets take, in each direction.
package mesh
