package host

import (
	"maps"
	"slices"
	"time"

	"drover"
	"drover/boltstore"
)

// The buckets of the agent's file. Keys are machine, disk, layer and migration IDs.
var (
	desiredBucket  = boltstore.Bucket[drover.ApplyRequest]{Name: "desired", Version: 1}
	observedBucket = boltstore.Bucket[observed]{Name: "observed", Version: 1}
	moveBucket     = boltstore.Bucket[moveRecord]{Name: "move", Version: 1}
	diskBucket     = boltstore.Bucket[diskRecord]{Name: "disks", Version: 1}
	retiredBucket  = boltstore.Bucket[retiredRecord]{Name: "retired", Version: 1}
	endedBucket    = boltstore.Bucket[endedMove]{Name: "ended-moves", Version: 1}
	frozenBucket   = boltstore.Bucket[frozenRecord]{Name: "frozen", Version: 1}
	standbyBucket  = boltstore.Bucket[standbyRecord]{Name: "standbys", Version: 1}
	settingsBucket = boltstore.Bucket[drover.StorageSettings]{Name: "settings", Version: 1}
)

// storeMigrations are the numbered changes to the form of the whole file. Append only.
func storeMigrations() []boltstore.Migration { return nil }

// records is everything durable about one machine on this host. A *records that was published is never changed; its slices and
// maps are replaced, never written to.
type records struct {
	// Desired is nil on a target that has not been given the machine yet.
	Desired *drover.ApplyRequest
	Obs     observed
	// Move is nil when the machine takes part in no migration here.
	Move *moveRecord
}

// observed is what is there, and what the agent must remember to go on after a restart.
type observed struct {
	Status drover.MachineStatus `json:"status"`
	// Seq numbers the events within the epoch.
	Seq uint64   `json:"seq"`
	VM  vmRecord `json:"vm"`
	// Open lists the layers that may be open for writing; while there is one, there may be a tap, too.
	Open []drover.LayerID `json:"open,omitempty"`
	// Over: the run OverRun ended by its own doing, and the restart policy does not start it again.
	Over    bool   `json:"over,omitempty"`
	OverRun uint64 `json:"over_run,omitempty"`
	// RetryAt is when the next start may be made: the back-off of the restart policy, or of a start that failed.
	RetryAt time.Time `json:"retry_at,omitzero"`
	// Retries counts the restarts in a row by the policy, BootTries the boots in a row that hung, StartTries the starts in a row
	// that failed before there was a VM.
	Retries    int `json:"retries,omitempty"`
	BootTries  int `json:"boot_tries,omitempty"`
	StartTries int `json:"start_tries,omitempty"`
	// Destroy: the machine goes, by its own auto_destroy.
	Destroy bool `json:"destroy,omitempty"`
	// Memory is the machine's memory on a disk; nil for none. MemoryTries numbers the disks' layers; SuspendOver is the newest
	// drover.Machine.Suspend that came to nothing.
	Memory      *memoryRecord `json:"memory,omitempty"`
	MemoryTries uint64        `json:"memory_tries,omitempty"`
	SuspendOver uint64        `json:"suspend_over,omitempty"`
	// Lost is set when the placement names another host, or none, though this host never took part in a switch.
	Lost *lost `json:"lost,omitempty"`
}

// vmRecord is the VM that there may be.
type vmRecord struct {
	// Launch counts the VMs of the machine on this host.
	Launch uint64 `json:"launch"`
	// Live is stored before the VM is started and cleared when its end was dealt with. Launched says that the start went through.
	Live     bool      `json:"live,omitempty"`
	Launched bool      `json:"launched,omitempty"`
	At       time.Time `json:"at,omitzero"`
	// Instance, Run and Epoch are what the VM was started with.
	Instance drover.InstanceID `json:"instance,omitempty"`
	Run      uint64            `json:"run"`
	Epoch    drover.Epoch      `json:"epoch"`
	// Offset is how far the status file was read.
	Offset int64 `json:"offset"`
	// Boot is the VM's name in its reports when it was started on another host; empty for bootName's.
	Boot string `json:"boot,omitempty"`
	// Resuming: it was started to take the machine's memory from a disk, and executes nothing. Loaded: it has all of it, and what is on the
	// disk was given up in the same write: it may go on, at any time, and nothing else ever does.
	Resuming bool `json:"resuming,omitempty"`
	Loaded   bool `json:"loaded,omitempty"`
	// ClockDue: the guest stood still, and its clock is to be set; until then it is tried.
	ClockDue time.Time `json:"clock_due,omitzero"`
	// Checking: the guest told that it checks a file system, for which the boot has more time.
	Checking bool `json:"checking,omitempty"`
	// MainStarted: the guest told that the main process runs.
	MainStarted bool `json:"main_started,omitempty"`
	// Exit is what the guest told of the main process's end.
	Exit *exitReport `json:"exit,omitempty"`
	// BootError is what the guest told of a boot that failed.
	BootError string `json:"boot_error,omitempty"`
	// StopAt is when an orderly stop was begun, StopWhy for what. Killed is the reason for which the agent killed it.
	StopAt  time.Time `json:"stop_at,omitzero"`
	StopWhy string    `json:"stop_why,omitempty"`
	Killed  string    `json:"killed,omitempty"`
}

// exitReport is the end of a main process in the guest's own words.
type exitReport struct {
	Code   int       `json:"code"`
	Signal int       `json:"signal,omitempty"`
	OOM    bool      `json:"oom,omitempty"`
	Text   string    `json:"text,omitempty"`
	At     time.Time `json:"at"`
}

// lost tells where the machine went. Host is empty when the placement is gone: the machine was destroyed.
type lost struct {
	Host  drover.HostID `json:"host,omitempty"`
	Epoch drover.Epoch  `json:"epoch,omitempty"`
}

// moveRole is this host's side of a migration.
type moveRole string

const (
	roleSource moveRole = "source"
	roleTarget moveRole = "target"
)

// moveEnding is how this host's part is being ended.
type moveEnding string

const (
	endingAbort   moveEnding = "abort"
	endingRelease moveEnding = "release"
)

// moveRecord is this host's part in one migration. Wishes are stored by orders, marks by the loop.
type moveRecord struct {
	Migration drover.MigrationID `json:"migration"`
	Role      moveRole           `json:"role"`
	Ending    moveEnding         `json:"ending,omitempty"`

	// Source. Target is who may read; Exports what was exported, valid once Exported.
	Target   drover.HostID   `json:"target,omitempty"`
	Exported bool            `json:"exported,omitempty"`
	Exports  []drover.Export `json:"exports,omitempty"`
	// Round is the newest round of a late migration that was asked for; Rounded the newest that is done: on the source its layers are frozen and
	// exported (RoundExports, at RoundAt), on the target they are copied and frozen.
	Round        int             `json:"round,omitempty"`
	Rounded      int             `json:"rounded,omitempty"`
	RoundExports []drover.Export `json:"round_exports,omitempty"`
	RoundAt      time.Time       `json:"round_at,omitzero"`
	// Hold: the machine is stopped and stays so. StoppedAt is when its VM ended, zero if it did not run.
	Hold      bool      `json:"hold,omitempty"`
	StoppedAt time.Time `json:"stopped_at,omitzero"`
	// Frozen is THE mark: from here on the placement alone says who owns the machine. Allocated is there once every layer is frozen.
	Frozen    bool                           `json:"frozen,omitempty"`
	Allocated map[drover.DiskID]drover.Bytes `json:"allocated,omitempty"`
	// Send is the source's part in moving the memory; nil for a cold migration.
	Send *sendRecord `json:"send,omitempty"`
	// Moved is the epoch of the placement that named another host; Fenced that the storage daemon knows it.
	Moved  drover.Epoch `json:"moved,omitempty"`
	Fenced bool         `json:"fenced,omitempty"`

	// Target. Reserve is what was promised, nil when only an activation came. Image is there once it is in the pool.
	Reserve *drover.MoveReserveRequest `json:"reserve,omitempty"`
	Image   *drover.ImageLayer         `json:"image,omitempty"`
	// WantClones: Exports says what to clone. Cloned: the layers are there and can read.
	WantClones bool `json:"want_clones,omitempty"`
	Cloned     bool `json:"cloned,omitempty"`
	// Undoes is the migration that this one takes back; Kept is what this host kept of it, each layer the base of one that the machine gets.
	Undoes drover.MigrationID `json:"undoes,omitempty"`
	Kept   []diskRecord       `json:"kept,omitempty"`
	// Earlier is this host's part in the migration that is taken back, on both sides, when that was under way still.
	Earlier *earlierPart `json:"earlier,omitempty"`
	// Take is the target's part in moving the memory; nil for a cold migration.
	Take *takeRecord `json:"take,omitempty"`
	// AdoptedAt is when this host became the owner. Hydrated: no layer needs its parent any more.
	AdoptedAt time.Time `json:"adopted_at,omitzero"`
	// Limit bounds the copying of all disks together, in bytes per second; 0 for no bound.
	Limit    drover.Bytes `json:"limit,omitempty"`
	Hydrated bool         `json:"hydrated,omitempty"`
}

// adopted reports whether the machine was handed over to this host.
func (m *moveRecord) adopted() bool { return m.Role == roleTarget && !m.AdoptedAt.IsZero() }

// finished reports whether nothing is left to be done, so that another migration may take its place.
func (m *moveRecord) finished() bool { return m.adopted() && m.Hydrated }

// diskRecord says which layer holds a disk on this host now.
type diskRecord struct {
	Disk   drover.DiskID   `json:"disk"`
	Volume drover.VolumeID `json:"volume,omitempty"`
	Layer  drover.LayerID  `json:"layer"`
	Size   drover.Bytes    `json:"size"`
	// Recovery made it here from a copy; empty for one that was made or moved here.
	Recovery drover.RecoveryID `json:"recovery,omitempty"`
	// Base is the standby's layer that it was made over.
	Base drover.LayerID `json:"base,omitempty"`
	// Used: a guest has mounted it, so that it must hold a file system.
	Used bool `json:"used,omitempty"`
	// Migration brought the disk here; empty when it was made here.
	Migration drover.MigrationID `json:"migration,omitempty"`
	// Cipher is how it is encrypted; nil for not at all.
	Cipher *drover.Cipher `json:"cipher,omitempty"`
	// Made: the layer was created. Image is what a root disk is a change to.
	Made  bool               `json:"made,omitempty"`
	Image *drover.ImageLayer `json:"image,omitempty"`
	// Parent or Snapshot is what a volume that was made here is still being filled from; both are gone when it is complete.
	Parent   *drover.Export         `json:"parent,omitempty"`
	Snapshot *drover.SnapshotSource `json:"snapshot,omitempty"`
	// HydrateLimit and HydratePaused are what an operator wishes of the background copy; without a limit that of the migration holds, if any.
	HydrateLimit  *drover.Bytes `json:"hydrate_limit,omitempty"`
	HydratePaused bool          `json:"hydrate_paused,omitempty"`
	// Reserve is the room that is held with a volume until ReserveUntil, or a machine mounts it.
	Reserve      *drover.Guest `json:"reserve,omitempty"`
	ReserveUntil time.Time     `json:"reserve_until,omitzero"`
}

// filling reports whether a volume that was made here is not complete yet.
func (d diskRecord) filling() bool { return d.Parent != nil || d.Snapshot != nil }

// frozenRecord is a layer that was frozen for a snapshot or a fork of a volume: the journal of both. It stays where it is while the volume
// moves on, and is not part of what a migration gives up.
type frozenRecord struct {
	Layer  drover.LayerID  `json:"layer"`
	Disk   drover.DiskID   `json:"disk"`
	Volume drover.VolumeID `json:"volume"`
	// Snapshot or Fork says what it is for. Target is the host that may read it for a fork; this host itself reads without an export.
	Snapshot drover.SnapshotID `json:"snapshot,omitempty"`
	Fork     drover.VolumeID   `json:"fork,omitempty"`
	Target   drover.HostID     `json:"target,omitempty"`
	// Standby is set for a step of a standby on the host Target.
	Standby drover.StandbyID `json:"standby,omitempty"`
	// BegunAt is stored before the split, TakenAt after it.
	BegunAt  time.Time    `json:"begun_at,omitzero"`
	TakenAt  time.Time    `json:"taken_at,omitzero"`
	Quiesced bool         `json:"quiesced,omitempty"`
	Size     drover.Bytes `json:"size,omitempty"`
	// EndedAt is when it was given up; a late order finds it and does nothing.
	EndedAt time.Time `json:"ended_at,omitzero"`
}

// retiredRecord is a layer that is deleted after a time: the source's copy after a move.
type retiredRecord struct {
	Layer       drover.LayerID     `json:"layer"`
	Disk        drover.DiskID      `json:"disk"`
	Migration   drover.MigrationID `json:"migration,omitempty"`
	DeleteAfter time.Time          `json:"delete_after"`
	// Machine is whose copy it is after a migration; empty in records of versions that did not outdate copies.
	Machine drover.MachineID `json:"machine,omitempty"`
	// Kept: the machine went on elsewhere without this host, so that the layer may have what no other has.
	Kept *keptRecord `json:"kept,omitempty"`
	// Was is what the disk was here, so that the layer can become it again; nil in records of versions that could not undo. Held is the migration
	// that does so: it is not deleted meanwhile.
	Was  *diskRecord        `json:"was,omitempty"`
	Held drover.MigrationID `json:"held,omitempty"`
	// Wipe: it is made unreadable first. An encrypted one is so when its key is gone.
	Wipe bool `json:"wipe,omitempty"`
}

// keptRecord says how a layer came to be kept aside.
type keptRecord struct {
	Volume  drover.VolumeID  `json:"volume,omitempty"`
	Machine drover.MachineID `json:"machine"`
	Owner   drover.HostID    `json:"owner"`
	Epoch   drover.Epoch     `json:"epoch"`
	At      time.Time        `json:"at"`
	// Later is what lay over the newest point that a frozen layer still marked when it was put aside, if LaterKnown: that layer may go.
	Later      drover.Bytes `json:"later,omitempty"`
	LaterKnown bool         `json:"later_known,omitempty"`
}

// endedMove remembers a migration that this host is done with, so that a late order for it does nothing.
type endedMove struct {
	At      time.Time  `json:"at"`
	Machine string     `json:"machine"`
	Ending  moveEnding `json:"ending"`
	Why     string     `json:"why"`
}

// Bounds of what is remembered of ended migrations.
const (
	endedMoveKeep = 24 * time.Hour
	endedMoveMax  = 2000
)

// clone returns a copy that may be changed.
func (r *records) clone() *records {
	c := *r
	if r.Desired != nil {
		d := *r.Desired
		c.Desired = &d
	}
	if r.Move != nil {
		m := *r.Move
		m.Exports = slices.Clone(m.Exports)
		m.Allocated = maps.Clone(m.Allocated)
		m.Send, m.Take = m.Send.clone(), m.Take.clone()
		c.Move = &m
	}
	c.Obs.Memory = r.Obs.Memory.clone()
	c.Obs.Status.Events = slices.Clip(r.Obs.Status.Events)
	return &c
}

// put stores the records of a machine.
func (r *records) put(tx *boltstore.Tx, id drover.MachineID) error {
	key := string(id)
	if r.Desired == nil {
		if err := desiredBucket.Delete(tx, key); err != nil {
			return err
		}
	} else if err := desiredBucket.Put(tx, key, *r.Desired); err != nil {
		return err
	}
	if r.Move == nil {
		if err := moveBucket.Delete(tx, key); err != nil {
			return err
		}
	} else if err := moveBucket.Put(tx, key, *r.Move); err != nil {
		return err
	}
	if r.empty() {
		return observedBucket.Delete(tx, key)
	}
	return observedBucket.Put(tx, key, r.Obs)
}

// empty reports whether nothing is known of the machine any more.
func (r *records) empty() bool { return r.Desired == nil && r.Move == nil }

// goal is what the machine is to become.
func (r *records) goal() drover.Goal {
	if r.Desired == nil {
		return ""
	}
	if r.Obs.Destroy {
		return drover.GoalDestroyed
	}
	return r.Desired.Machine.Goal
}

// source and target return the move record of the role, nil if there is none.
func (r *records) source() *moveRecord { return r.moveAs(roleSource) }
func (r *records) target() *moveRecord { return r.moveAs(roleTarget) }

func (r *records) moveAs(role moveRole) *moveRecord {
	if r.Move == nil || r.Move.Role != role {
		return nil
	}
	return r.Move
}
