// Package host is the agent of one worker host: it owns the machines of the host, and does the host's part of every
// migration.
//
// # How it works
//
// Each machine has three records in the host's own bbolt file: desired (what the control side wants, and at which epoch),
// observed (what is there), and move (this host's part in a migration, if there is one). One goroutine per machine does all work on
// the machine: it loads the records, asks next what is to be done, does that one thing, stores the result, and starts over.
// Orders, the end of a VM, news from the guest, timers and the start of the agent itself only wake it: there is no other start-up
// path. An order changes records and waits until the loop got there; it never touches a VM or a layer itself.
//
// Every action looks at reality first (is the VM there? is the layer?) and may be cut anywhere and done again.
//
// # Invariants
//
//   - The journal comes first: no VM, layer, tap, export or file is made before a record says that it may be there.
//   - When the journal cannot be written, the agent stops (Run returns the error). VMs and storage run on.
//   - Events of a machine are stored with the state change that they tell of, so that none is lost or told twice.
//   - Data that was not frozen by this host, or ordered away, is never deleted. Layers without a record are reported, not removed.
//   - The end of the agent ends no VM.
//
// # Why a host may start its machines without asking
//
// A machine never runs in two places (promise 2), yet a host that was cut off, or came back after a power cut, must run its
// machines again without anybody's help (promise 7). Both hold because of one rule: a machine leaves a host only by a switch that this
// host took part in. Before the control side may change the placement, the source has stored, durably, that the layers are frozen.
// So a host whose records hold no such mark knows, without asking, that no other host can own the machine, and starts it. A host whose
// records hold the mark does not know, and so neither thaws nor starts before it has read the placement, or was told to abort.
// Where the bus answers, the placement is read at every start anyway (see confirmOwner), so that a mistake of the control
// side is noticed early, and the storage daemon's fence refuses a stale epoch in any case.
//
// There is one exception: a recovery, which starts the machines of a host elsewhere without its consent, after something else has made certain
// that the host is off (see docs/DEAD-HOST.md). A host that comes back finds that out from the placements. That they are read first, an agent
// asks for them again and again in the first ten seconds of its life before it starts anything; a bus that is silent for longer than that holds
// nothing up. Who confirms that a host is off confirms that it does not come back without its bus. What the host has of a machine that went on
// elsewhere is kept aside, fenced, for a week.
//
// # What others see
//
// A machine that is held for a migration is "stopping", with a reason that names the migration, until it runs on its target or the
// migration is given up. One that had ended by itself before stays "stopped" or "failed", and a target that is handed such a machine
// (by the status in the order to activate) does not start it before a larger Run asks for it. A machine in the back-off of its restart
// policy is "starting", with the reason and the wait. Event IDs are MACHINE-EPOCH-NUMBER.
//
// A suspended machine has its memory on a disk of its own, which moves with it like the others. What is on it is gone on from once: it is
// given up, durably, before the guest that took it executes, and while a migration is under way nobody goes on from it at all. A machine that cannot
// go on from it boots, and an event says why. docs/SUSPEND.md has the whole of it.
//
// A root disk that the next start would replace (its machine's image was updated meanwhile, or it never started) is not exported: the target
// makes a new one. The list of exports may therefore be empty.
//
// A migration that was aborted, given up or released here is remembered for a day: a late order of it gets Canceled. An order to
// activate, and one to release, is checked against the placement itself.
//
// # What it never does
//
// It never decides where a machine runs, never changes a placement, and never gives up a frozen source on its own.
package host
