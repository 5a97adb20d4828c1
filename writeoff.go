package drover

import "time"

// WriteOff is the giving up of a migration's source that is lost while the data is on the way: what had not come is lost with it.
type WriteOff struct {
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	// DoneAt is when the target had done it; from then on nothing is waited for. Disks is what was lost.
	DoneAt time.Time  `json:"done_at,omitzero"`
	Disks  []DiskLoss `json:"disks,omitempty"`
}

// DiskLoss is what was lost of a disk: reads of it fail until it is written.
type DiskLoss struct {
	Disk   DiskID   `json:"disk"`
	Volume VolumeID `json:"volume,omitempty"`
	Lost   Bytes    `json:"lost"`
	// Holes is where, the first MaxDamaged ranges.
	Holes []ByteRange `json:"holes,omitempty"`
}

// LostSource is what there is to be decided on when the source of a migration is lost.
type LostSource struct {
	Migration MigrationID `json:"migration"`
	Machine   MachineID   `json:"machine"`
	Source    HostID      `json:"source"`
	Target    HostID      `json:"target"`
	// Missing is how much has not come yet; of disks of which it is not known how much the source had, MissingKnown is false.
	Missing      Bytes `json:"missing"`
	MissingKnown bool  `json:"missing_known"`
	// Copies are the newest copies of the machine's volumes that are not on the source.
	Copies []RecoverySource `json:"copies"`
	// WriteOff is what was given up; nil when that was only asked about.
	WriteOff *WriteOff `json:"write_off,omitempty"`
}
