package host

import (
	"context"
	"net/netip"
	"time"

	"drover"
)

// Storage is the host's storage daemon (volume.Client). Every method may be repeated, is durable when it returns,
// and is safe for concurrent use. Errors: Unavailable when the daemon does not answer, NotFound for an unknown layer,
// Conflict for a stale epoch, Exhausted when the disk is full.
type Storage interface {
	// CreateLayer makes a layer, or finds that it is there already with the same spec (Exists if with another).
	CreateLayer(ctx context.Context, spec LayerSpec) (drover.LayerStatus, error)
	// ImportImage takes over the raw disk image at path (same file system as the pool) as a read-only layer.
	ImportImage(ctx context.Context, id drover.LayerID, path string) (drover.LayerStatus, error)
	// Open raises the disk's fence to the epoch and lets the layer be written at it. It returns where a VM attaches.
	Open(ctx context.Context, id drover.LayerID, epoch drover.Epoch) (Attachment, error)
	// Prepare names a vhost-user-blk socket for a layer that is not open yet: the VM that listens there is served, and waits until Open. Unprepare ends it.
	Prepare(ctx context.Context, id drover.LayerID, token string) (Attachment, error)
	Unprepare(ctx context.Context, id drover.LayerID, token string) error
	// Flush makes durable what was written before.
	Flush(ctx context.Context, id drover.LayerID) error
	// Close ends writing: connections are ended, everything is flushed.
	Close(ctx context.Context, id drover.LayerID) error
	// Fence raises the fence of a disk, ending writers of lower epochs, on any of its layers.
	Fence(ctx context.Context, disk drover.DiskID, epoch drover.Epoch) error
	// Freeze ends writing for good: flushed, durable, Open is refused until Thaw.
	Freeze(ctx context.Context, id drover.LayerID) (drover.LayerStatus, error)
	// Thaw takes a Freeze back.
	Thaw(ctx context.Context, id drover.LayerID) error
	// Export lets the host peer read the layer over TLS, until Unexport. It survives restarts of the daemon.
	Export(ctx context.Context, id drover.LayerID, peer drover.HostID) error
	Unexport(ctx context.Context, id drover.LayerID, peer drover.HostID) error
	// CheckParent reads one block from the layer's parent, to prove network, certificates and export.
	CheckParent(ctx context.Context, id drover.LayerID) error
	// Hydrate starts or goes on with the background copy, at most limit bytes per second (0: no limit).
	Hydrate(ctx context.Context, id drover.LayerID, limit drover.Bytes) error
	// WriteOff gives up what has not come from the layer's parent on another host: reads of it fail until it is written. Hydration.Holes names it.
	WriteOff(ctx context.Context, id drover.LayerID) (drover.LayerStatus, error)
	// SetKey hands over the key of encrypted layers; it is kept until the host loses its power, or no layer here may be opened with it.
	SetKey(ctx context.Context, id drover.KeyID, secret []byte) error
	// Delete removes a layer. Precondition while it is open, exported or the base of several; the base of one is taken in by that one.
	Delete(ctx context.Context, id drover.LayerID) error
	// Wipe is Delete that makes the data unreadable first.
	Wipe(ctx context.Context, id drover.LayerID) error
	// Split freezes what the layer holds as the new layer into, and makes the layer one over it. Its writer goes on.
	Split(ctx context.Context, id, into drover.LayerID) (drover.LayerStatus, error)
	// Resize makes a layer larger, for its writer too. Invalid for a smaller size.
	Resize(ctx context.Context, id drover.LayerID, size drover.Bytes) error
	// Limit bounds what the layer's writer may do per second.
	Limit(ctx context.Context, id drover.LayerID, limits drover.Limits) error
	// PauseHydration stops the background copy, or lets it go on.
	PauseHydration(ctx context.Context, id drover.LayerID, paused bool) error
	// Settings sets what holds for the host's storage as a whole.
	Settings(ctx context.Context, settings drover.StorageSettings) error
	// Upload starts or goes on with copying a frozen layer into the object store.
	Upload(ctx context.Context, id drover.LayerID, snapshot drover.SnapshotSource) (drover.LayerStatus, error)
	// Verify begins to compare the layer with its checksums, or with a snapshot, or tells how far that is.
	Verify(ctx context.Context, id drover.LayerID, against *drover.SnapshotSource) (drover.LayerStatus, error)
	Layer(ctx context.Context, id drover.LayerID) (drover.LayerStatus, error)
	Layers(ctx context.Context) ([]drover.LayerStatus, error)
}

// LayerSpec describes a new layer.
type LayerSpec = drover.LayerSpec

// Attachment is where a VM finds its disk.
type Attachment = drover.Attachment

// VMM starts and finds VMs (qemu.Driver).
type VMM interface {
	// Start launches a VM that outlives this process. It returns when the VM's process runs, long before the guest is up.
	// Exists when a VM of the ID is already running: Find it.
	Start(ctx context.Context, spec drover.VMSpec) (VM, error)
	// Find attaches to the running VM of the ID. NotFound when none runs.
	Find(ctx context.Context, id drover.MachineID) (VM, error)
	// Running lists the VMs whose process exists, known to the caller or not.
	Running(ctx context.Context) ([]drover.MachineID, error)
}

// VM is one running VM.
type VM interface {
	// Kill ends the process at once, and returns when it is gone. No error when it is gone already.
	Kill(ctx context.Context) error
	// Done is closed when the process is gone. Ended then tells when and why.
	Done() <-chan struct{}
	Ended() (at time.Time, reason string)
	// Resize makes the guest see that a disk, whose layer is that large already, has grown: disk 0 is the root disk, the volumes follow.
	// at is where the layer is attached to now. It may be repeated. Precondition when this VM cannot be told.
	Resize(ctx context.Context, disk int, at drover.Attachment, size drover.Bytes) error
	// SetShare changes what the VM gets of the host's CPUs.
	SetShare(share drover.VMShare) error
	LiveVM
	StatefulVM
}

// Images turns images into layers (oci.Store, with the storage daemon).
type Images interface {
	// Resolve looks an image up and pins it. NotFound or Invalid name the image and the part that is wrong.
	Resolve(ctx context.Context, image string) (drover.ResolvedImage, error)
	// Fetchable returns nil when what ref pins is there to be fetched, whatever the image's name leads to by now.
	Fetchable(ctx context.Context, image string, ref drover.ImageRef) error
	// Ensure makes the image's layer exist in the pool and returns it with the image's own config. Concurrent calls for one
	// image share the work. progress may be called with text for people.
	Ensure(ctx context.Context, image string, ref drover.ImageRef, progress func(string)) (drover.ImageLayer, error)
}

// Guest talks to drover-init in a VM through the agent socket (guest.Client).
type Guest interface {
	// Exec runs a command beside the main process.
	Exec(ctx context.Context, req drover.ExecRequest) (drover.ExecResult, error)
	// Signal sends the main process a signal by name.
	Signal(ctx context.Context, signal string) error
	// Stop asks for an orderly end: the signal, after the timeout SIGKILL, then unmount and power off.
	Stop(ctx context.Context, signal string, timeout time.Duration) error
	// Freeze holds all writes to a volume's file system, flushed, until Thaw or until the time is over, whichever comes first.
	// Precondition when the guest is too old to know how.
	Freeze(ctx context.Context, volume drover.VolumeID, most time.Duration) error
	// Thaw ends a Freeze. Precondition when its time was over before: the file system may have been written since.
	Thaw(ctx context.Context, volume drover.VolumeID) error
	// Grow makes a volume's file system as large as its disk, once the disk has that size in the guest.
	Grow(ctx context.Context, volume drover.VolumeID, size drover.Bytes) error
	// Ps lists the processes. Precondition when the guest is too old to know how.
	Ps(ctx context.Context) ([]drover.Process, error)
	// SetClock sets the wall clock. Precondition when the guest is too old to know how.
	SetClock(ctx context.Context, now time.Time) error
	StreamGuest
	Close() error
}

// Bus is what the agent needs of the fleet (natsbus.HostBus). Unavailable when the bus does not answer within the context.
type Bus interface {
	// Placement reads the newest placement, from the leader. NotFound when the machine has none (it was destroyed).
	Placement(ctx context.Context, id drover.MachineID) (drover.Placement, error)
	// Doubted asks a control host which of the machines that this host has, with the epochs that it knows, are not its own any more; what it says may be old.
	Doubted(ctx context.Context, has map[drover.MachineID]drover.Epoch) ([]drover.MachineID, error)
	Machine(ctx context.Context, id drover.MachineID) (drover.Machine, error)
	Migration(ctx context.Context, id drover.MigrationID) (drover.Migration, error)
	// PublishStatus writes the status unless one of a newer epoch is there (Conflict).
	PublishStatus(ctx context.Context, s drover.MachineStatus) error
	PublishInfo(ctx context.Context, info drover.HostInfo) error
	// Serve answers an order with the handler until ctx ends. The handler gets the request's JSON and returns the answer.
	Serve(ctx context.Context, order drover.Order, handler func(ctx context.Context, request []byte) (any, error)) error
	// Connected is closed and replaced at each (re)connection: a signal to look again at what may have changed meanwhile.
	Connected() <-chan struct{}
	// FollowPlacements, FollowMachines, FollowHosts and FollowPolicies call fn with every record, then with an empty ID, then with every change of one, nil
	// when it is gone, until ctx ends.
	FollowPlacements(ctx context.Context, fn func(drover.MachineID, *drover.Placement) error) error
	FollowMachines(ctx context.Context, fn func(drover.MachineID, *drover.Machine) error) error
	FollowHosts(ctx context.Context, fn func(drover.HostID, *drover.HostInfo) error) error
	FollowPolicies(ctx context.Context, fn func(drover.AppName, *drover.AppPolicies) error) error
	StreamBus
}

// Routes sends packets for the machines of other hosts there (netdev.MeshRoutes). Repeatable.
type Routes interface {
	// Set routes a machine's address by way of another host, before any other route to it.
	Set(ctx context.Context, machine, via netip.Addr) error
	// Remove takes the route away; nothing to remove is no error.
	Remove(ctx context.Context, machine netip.Addr) error
	// List returns the routes that there are.
	List(ctx context.Context) (map[netip.Addr]netip.Addr, error)
}

// Network gives machines their link (netdev.Taps, or netdev.User where taps are not allowed). Repeatable.
type Network interface {
	// Attach makes the machine's tap device and the route of its private address to it. An empty tap means that the VMM's user
	// networking is to be used.
	Attach(ctx context.Context, id drover.MachineID, address string) (tap string, err error)
	// Police sets what the machine may receive and send in its network, in one step, also before Attach and while it runs.
	Police(ctx context.Context, id drover.MachineID, address string, p drover.MachinePolicy) error
	// Detach removes all three; nothing to remove is no error.
	Detach(ctx context.Context, id drover.MachineID) error
	// Attached lists the machines that have a device, so that leftovers can be found.
	Attached(ctx context.Context) ([]drover.MachineID, error)
}
