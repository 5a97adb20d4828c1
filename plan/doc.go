// Package plan decides where a machine goes: from what the hosts offer, and from how the machines of an app are spread. It does no I/O,
// reads no clock and draws no lots: the same offers always give the same host, and a refusal names every host with its reason.
package plan
