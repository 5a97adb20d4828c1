// Package fleet is the control role: it keeps what the fleet agrees on (apps, machines, placements, volumes, migrations, hosts), places
// new machines, drives migrations, and gives hosts their orders. Any number of control hosts may run it; the one with the lease
// drives migrations and repairs.
//
// It never assumes that an order was carried out: hosts report, and what a host missed it is told again.
//
// # Use
//
// New makes a Fleet, Run works until its context ends; the methods may be called from any goroutine, and answer Unavailable until Run has read
// the fleet's state. Lists and views come from memory, which follows the store by watching; whatever decides something is read from the store.
//
// # What is written when
//
// A thing exists when its own record does. What it needs to be unique or reserved beforehand is claimed under its ID first: the name of a
// machine, the volumes, the placement, each by a write of its own, all at once; the record is written when all of them are durable. So a crash while a
// machine is made leaves some of the claims of an ID without a record, and nothing else. The
// repair of the lease holder finds claims that are old, makes the record itself as that of a destroyed machine (so that a maker that is merely
// slow fails at its own write of it), and then takes the ordinary way of destroying. See make.go, claims.go and repair.go.
//
// # The lease
//
// The lease keeps two control hosts from doing the same work, and nothing depends on it: every order may be given twice, and every record
// changes by compare-and-set, so that a holder that does not know yet that it lost the lease fails at its next write.
package fleet
