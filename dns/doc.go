// Package dns answers machines' questions for names, on each host, at drover.ResolverAddress: those under .internal from what the host knows itself, so that
// they are answered while the bus is away; all others by asking the host's own resolver.
//
// Who asks decides what there is: a machine sees the apps of its own network and nothing of any other. Only machines that are started have names.
// What is answered to a question is a pure function of the table (Answer); the rest of the package is the server around it, with a written bound for
// everything that a machine could ask too much of.
package dns
