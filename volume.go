package drover

import "time"

// VolumeState is what a volume is now, in the words of the Machines API.
type VolumeState string

// The states.
const (
	// VolumeCreating: the record is there, its layer may not be.
	VolumeCreating VolumeState = "creating"
	// VolumeCreated: the layer is there and complete.
	VolumeCreated VolumeState = "created"
	// VolumeHydrating: usable, while blocks are still fetched from another host.
	VolumeHydrating VolumeState = "hydrating"
	// VolumeDestroying: its layers are being removed.
	VolumeDestroying VolumeState = "pending_destroy"
)

// Volume is a block device of an app. The control side writes it.
type Volume struct {
	ID     VolumeID    `json:"id"`
	App    AppName     `json:"app"`
	Name   string      `json:"name"`
	Region Region      `json:"region"`
	Size   Bytes       `json:"size"`
	State  VolumeState `json:"state"`
	// Host is where the volume lives while no machine has it. While one has, the machine's placement says it.
	Host HostID `json:"host"`
	// Machine has the volume; empty when none has.
	Machine MachineID `json:"machine,omitempty"`
	// Epoch is the newest one at which the volume was opened or placed, so that the next machine's is larger.
	Epoch     Epoch     `json:"epoch"`
	CreatedAt time.Time `json:"created_at"`
}

// LayerState is what a layer of a host's pool is now.
type LayerState string

// The states of a layer.
const (
	// LayerReady: may be opened for writing at an epoch.
	LayerReady LayerState = "ready"
	// LayerFrozen: never written again, unless thawed before the switch. Reads and exports go on.
	LayerFrozen LayerState = "frozen"
	// LayerImage: an image's content, read-only for life, the base of root disks.
	LayerImage LayerState = "image"
)

// LayerStatus is one layer as the storage daemon sees it.
type LayerStatus struct {
	ID    LayerID    `json:"id"`
	Disk  DiskID     `json:"disk"`
	State LayerState `json:"state"`
	Size  Bytes      `json:"size"`
	// Allocated is what the layer's file takes on the host's disk.
	Allocated Bytes `json:"allocated"`
	// Writer is the epoch at which the layer is open for writing; 0 when it is not.
	Writer Epoch `json:"writer,omitempty"`
	// Clients counts NBD connections.
	Clients int `json:"clients"`
	// Exports lists the hosts that may read the layer.
	Exports []HostID `json:"exports,omitempty"`
	// Hydration is there while the layer has a parent on another host, and stays with Done set when it has none any more.
	Hydration *Hydration `json:"hydration,omitempty"`
	// Trouble says why the layer cannot be used (its files are damaged) or written (the disk failed); empty when it can.
	Trouble string `json:"trouble,omitempty"`
}

// Hydration is the progress of the background copy that fills a layer.
type Hydration struct {
	// Total is the data to be fetched: what is allocated at the parent. It is exact once TotalKnown.
	Total      Bytes `json:"total"`
	TotalKnown bool  `json:"total_known"`
	// Copied is the data that came over the network, by the background copy and by reads of the guest.
	Copied Bytes `json:"copied"`
	// Wire is how many bytes carried that data: fewer than Copied where the link compresses.
	Wire Bytes `json:"wire,omitempty"`
	// Skipped is the data that needed no copy because the guest overwrote or discarded it first.
	Skipped Bytes `json:"skipped"`
	// BytesPerSecond is the rate of the last seconds.
	BytesPerSecond Bytes `json:"bytes_per_second"`
	// Done: every block is here, durably, and the parent is needed no more.
	Done bool `json:"done"`
	// Waiting says why nothing moves ("parent h1 at 10.0.0.1:4290: connection refused"); empty while it does.
	Waiting   string    `json:"waiting,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	DoneAt    time.Time `json:"done_at,omitzero"`
}
