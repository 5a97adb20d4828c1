// Package fleet is the control role: it keeps what the fleet agrees on (apps, machines, placements, volumes, migrations, hosts), places
// new machines, drives migrations, and gives hosts their orders. Any number of control hosts may run it; the one with the lease
// drives migrations.
//
// It never assumes that an order was carried out: hosts report, and what a host missed it is told again.
package fleet
