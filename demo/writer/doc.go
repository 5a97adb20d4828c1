// Command writer runs inside a machine and makes loss visible: it fills a file with checksummed blocks and appends numbered
// records to a log, each made durable before it is acknowledged on standard output. Standard output leaves the
// machine, so whoever reads it knows from outside what must still be there after any move or crash.
//
//	writer run    -dir /data -fill MIB   fill and append until a signal comes; -serve PORT also answers requests
//	writer verify -dir /data             check every block and record, print one line of JSON
//	writer ask    ADDRESS:PORT ...       outside of machines: ask them all, again and again, until standard input ends; print one line of JSON
//
// Lines on standard output:
//
//	BOOT boot records blocks   what was found at the start: this run's random token, whole records, whole blocks
//	ACK number boot            the record is durable
//	FILLED blocks              so many blocks are durable
//	CORRUPT what               a record or block that was acknowledged has another content than was written
package main
