// Package network is the process of a host that carries packets between its machines and those of other hosts. It joins the fleet (a name, a number and
// a key that are nobody else's), follows where machines are, and tells package mesh.
//
// It is a process of its own, beside the agent: the agent restarts with each new version, and what runs on the host must not notice. It keeps
// in two files what it needs to go on without the bus: who this host is (mesh/identity.json, which has its private key), and the table as it last was
// (mesh/tables.json). It starts no machine, stops none, and gives no order.
package network
