package drover

import (
	"crypto/sha256"
	"fmt"
)

// LayerSpec describes a new layer of a host's pool.
type LayerSpec struct {
	ID   LayerID `json:"id"`
	Disk DiskID  `json:"disk"`
	Size Bytes   `json:"size"`
	// Base is a layer of the same host that absent blocks come from and that does not change: an image, or a frozen layer; empty for none.
	Base LayerID `json:"base,omitempty"`
	// Parent is a layer that absent blocks come from first, and that hydration makes dispensable: of another host, or a frozen one of
	// this host (Export.Host names it); nil for none. The layer may be larger than its parent.
	Parent *Export `json:"parent,omitempty"`
	// Snapshot is the same for a snapshot in the object store. At most one of Parent and Snapshot is set.
	Snapshot *SnapshotSource `json:"snapshot,omitempty"`
	// Cipher is how the content is encrypted; nil for not at all. It is that of the parent or snapshot.
	Cipher *Cipher `json:"cipher,omitempty"`
	// Limits bounds what its writer may do per second.
	Limits Limits `json:"limits,omitzero"`
}

// Limits bounds what a guest may ask of a volume per second; 0 is no limit.
type Limits struct {
	IOPS           int   `json:"iops,omitempty"`
	BytesPerSecond Bytes `json:"bytes_per_second,omitempty"`
}

// Transport is how a VM reaches an open layer.
type Transport string

// The transports.
const (
	// TransportNBD: the VMM has a copy of each request, and sends it over a socket.
	TransportNBD Transport = "nbd"
	// TransportVhost: the storage daemon reads and writes the guest's memory, which the VMM shares with it.
	TransportVhost Transport = "vhost-user-blk"
	// TransportAuto leaves the choice to Drover.
	TransportAuto Transport = "auto"
)

// ValidTransport reports whether a config may name the transport. Empty means auto.
func ValidTransport(t Transport) bool {
	return t == "" || t == TransportAuto || t == TransportNBD || t == TransportVhost
}

// ChooseTransport takes the machine's wish before the host's.
func ChooseTransport(machine, host Transport) Transport {
	for _, t := range []Transport{machine, host} {
		if t != "" && t != TransportAuto {
			return t
		}
	}
	return TransportAuto
}

// Attachment is where a VM finds an open layer.
type Attachment struct {
	// Transport is how; empty means NBD.
	Transport Transport `json:"transport,omitempty"`
	// Socket is a unix socket. For NBD the storage daemon listens there, and Export is the name of the export; for vhost-user-blk the VMM listens, and
	// the daemon connects.
	Socket string `json:"socket"`
	Export string `json:"export,omitempty"`
	// VhostSocket is where a VMM has to listen to be served the same layer over vhost-user-blk; empty if it cannot be.
	VhostSocket string `json:"vhost_socket,omitempty"`
}

// Over returns the attachment by the transport. Auto takes NBD where the storage daemon has nothing else.
func (a Attachment) Over(t Transport) (Attachment, error) {
	switch {
	case t == TransportVhost && a.VhostSocket == "":
		return a, Errorf(Precondition, "the storage daemon does not serve vhost-user-blk").
			WithHint("restart it with the program of this version, or use the disk transport nbd")
	case t == TransportVhost, t == TransportAuto && a.VhostSocket != "":
		return Attachment{Transport: TransportVhost, Socket: a.VhostSocket}, nil
	}
	return Attachment{Transport: TransportNBD, Socket: a.Socket, Export: a.Export}, nil
}

// VMShare is what a VM gets of its host's CPUs while others want them, too.
type VMShare struct {
	CPUs int
	// Kind is CPUShared or CPUPerformance: how much weight its CPUs have against those of others.
	Kind string
	// Hurry gives it several times that, because somebody waits for it: it boots, or its memory is on its way.
	Hurry bool
}

// VMSpec describes a VM to the VMM. It is started in a hurry (VMShare). Paths are the host's.
type VMSpec struct {
	Machine  MachineID `json:"machine"`
	CPUs     int       `json:"cpus"`
	MemoryMB int       `json:"memory_mb"`
	// KernelArgs are added to the kernel's command line.
	KernelArgs []string `json:"kernel_args,omitempty"`
	// Root is the first disk (/dev/vda in the guest).
	Root Attachment `json:"root"`
	// ConfigPath is a raw read-only disk with the guest's config (/dev/vdb): see package guest.
	ConfigPath string `json:"config_path"`
	// Volumes follow in order (/dev/vdc and on).
	Volumes []Attachment `json:"volumes,omitempty"`
	// Tap is the host's tap device for the machine; empty for QEMU's user networking.
	Tap string `json:"tap,omitempty"`
	MAC string `json:"mac"`
	// ConsolePath gets what the kernel prints, LogPath what the main process prints, StatusPath what drover-init reports; all
	// are appended to, by the VMM itself, so that nothing is lost while no agent runs.
	ConsolePath string `json:"console_path"`
	LogPath     string `json:"log_path"`
	StatusPath  string `json:"status_path"`
	// AgentSocket is where the VMM listens for the connection to drover-init.
	AgentSocket string `json:"agent_socket"`
	// Incoming: the VM executes nothing; it waits for the memory of another, and then to be resumed.
	Incoming bool `json:"incoming,omitempty"`
}

// ImageLayer is an image that is ready to be the base of root disks.
type ImageLayer struct {
	Layer LayerID     `json:"layer"`
	Size  Bytes       `json:"size"`
	Ref   ImageRef    `json:"ref"`
	Run   ImageConfig `json:"run"`
}

// ImageConfig is what the image says is to be run.
type ImageConfig struct {
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"`
	WorkDir    string   `json:"work_dir,omitempty"`
	User       string   `json:"user,omitempty"`
	StopSignal string   `json:"stop_signal,omitempty"`
}

// MAC returns the machine's hardware address: locally administered, unicast, made of the machine's ID, so that it is the same on
// every host.
func (m MachineID) MAC() string {
	h := sha256.Sum256([]byte(m))
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", h[0], h[1], h[2], h[3], h[4])
}
