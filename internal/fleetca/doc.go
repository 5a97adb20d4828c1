// Package fleetca is the fleet's own certificate authority: it makes the CA, issues each host's certificates into the host's TLS
// directory, and turns such a directory into TLS 1.3 configurations in which both sides prove who they are.
//
// A host's directory has the file names that QEMU and libnbd look for, so that their tools can be pointed at it:
//
//	ca-cert.pem                     the CA's certificate
//	server-cert.pem server-key.pem  shown to whoever connects; the CommonName is the host's ID, the names are the host's
//	                                ID and localhost, the addresses are the host's and the loopback ones
//	client-cert.pem client-key.pem  shown to whom the host connects; the CommonName is the host's ID
//
// A control host has one more, control-cert.pem with control-key.pem, which proves that it is one: what control hosts alone may read is sealed to
// it (Seal), and what only they may say is signed with it. Its key stays for good.
//
// Invariants: a private key never leaves the directory it was made in and is readable by its owner alone. Everything is durable before
// it is reported, and a crash at any moment leaves a directory that the next call repairs. A certificate with less than a third
// of its life left is issued again; running servers and clients take the new one at their next handshake.
package fleetca
