// Package migrate decides what is to be done next for one migration: the protocol of a move, as pure functions. It does no I/O and reads
// no clock; package fleet does what it says and tells it what came of it.
//
// # The protocol
//
//	phase     asked of               leaves the phase when
//	reserve   target: move.reserve   answered
//	export    source: move.export    both answered
//	          target: move.clone
//	converge  source: move.round     little is left to be copied, or the rounds are used up (a late switch only)
//	          target: move.copy
//	          target: move.clone
//	quiesce   source: move.quiesce   answered: the machine executes nothing any more
//	 (live)   target: move.incoming  the machine is paused, frozen, and its state is at the target
//	          source: move.live
//	switch    source: move.freeze    the placement was changed. Committing is written into the record between the two
//	start     target: move.activate  the main process runs, or the machine came to rest otherwise
//	          target: move.progress
//	hydrate   target: move.progress  every block is there, and the source has let go
//	          source: move.release
//	done
//
// A late migration makes its clones when it has converged; a live one leaves move.freeze out, since its source is frozen when it answers
// that the machine is paused. One that takes an earlier one back has move.undo for move.clone: its target has a copy.
// When the earlier one is under way still (Interrupts), its record says first that it stands aside, and at the end what came of it. A migration
// whose source is off, for certain, asks nothing of it, and looks at the fence each time before the placement is changed.
//
// Every order may be repeated, so a controller that takes over simply begins the phase again.
//
// # The point of no return
//
// It is the compare-and-set of the placement from FromEpoch. A write whose answer was lost may be carried out at any time later, so
// reading the placement back and finding it unchanged proves nothing. Therefore the intention is made durable first (Committing, in the same
// record and under the same compare-and-set that an abort would have to change), and from then on the write is repeated until its outcome is definite:
// it worked, or the placement has another revision than FromEpoch, which makes every copy of it that is still under way fail as well.
//
// # Invariants
//
//   - The placement is not changed before the source has answered the freeze, and only with Committing durable.
//   - After Committing nothing is aborted, unless the placement is seen to have become something else than both ends of the migration.
//   - Before Committing every wait has a bound and ends in an abort. After it, every wait is for ever, and the record says for what.
//   - A round is on record before it is asked for, and none is asked for after the clones.
//   - Copying before the switch that does not go on for the time of no progress, and whatever is under way at the deadline, is given up. After
//     the switch neither counts.
//   - An abort ends as soon as the source has undone its part; the target's part is undone when the target answers.
package migrate
