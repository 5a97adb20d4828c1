// Command demo shows a Postgres cluster that does not notice that its machines move: three members on three hosts and a reader in another region, found and
// registered by their literal private addresses; each host is drained in turn while a client far away writes and records each commit that was acknowledged.
// The last line is JSON.
//
//	demo -variant live|cold|powercut|two-on-one
package main
