// Package natsbus is the fleet's bus on NATS with JetStream: an embedded server, a connection that never gives up, typed
// key-value buckets that change by compare-and-set, and orders to hosts.
//
// It decides nothing. Every error that leaves it is a *drover.Error; no type of the NATS libraries does.
//
// Invariants:
//   - A write that was acknowledged is on the server's disk (sync_always), on a majority of them when there are several.
//   - A write whose outcome is unknown answers Unavailable: it may still be carried out, at any time later. Whoever must know repeats it
//     with the same revision, or reads the record back; reading alone does not prove that it will never happen.
//   - Nothing is buffered while the connection is down: what cannot be sent now fails now.
//   - Get never reads from a mirror or a follower; GetConfirmed is linearizable even if a deposed leader answers.
//   - An order answers within seconds or says that it is still at work; silence is Unavailable.
//
// The servers must be NATS 2.11 or later.
package natsbus
