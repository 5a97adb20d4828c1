// Package host is the agent of one worker host: it owns the machines that are placed there. For each it keeps the
// desired state, the observed state and the epoch in the host's own store, decides the next action with a pure function and
// does it, and obeys the orders of the control side.
//
// It never decides where a machine runs: the placement tells, and an order with an older epoch is refused. VMs and the
// storage daemon outlive it; it attaches to what it finds.
package host
