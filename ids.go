package drover

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
)

// Identities. Each is a type of its own so that a volume can never be passed where a machine is meant.
type (
	// AppName names an app; it is unique in the fleet and is the app's identity.
	AppName string
	// MachineID names a machine for life: 14 lower-case hexadecimal digits.
	MachineID string
	// InstanceID names one version of a machine's config; it changes at each update.
	InstanceID string
	// VolumeID names a volume for life: "vol_" and 16 lower-case hexadecimal digits.
	VolumeID string
	// HostID names a host: a DNS label chosen by the operator.
	HostID string
	// Region names a group of hosts close to each other: a DNS label.
	Region string
	// MigrationID names one migration: "mig_" and 16 lower-case hexadecimal digits.
	MigrationID string
	// DrainID names one drain of a host: "drn_" and 16 lower-case hexadecimal digits.
	DrainID string
	// ReleaseID names one release of an app: "rel_" and 16 lower-case hexadecimal digits.
	ReleaseID string
	// DeployID names one deploy of an app: "dpl_" and 16 lower-case hexadecimal digits.
	DeployID string
	// LayerID names one layer in one host's pool.
	LayerID string
	// DiskID names what a chain of layers is the content of: a volume ("vol_…") or a machine's root
	// disk ("root_<machine>"). Fences are kept per disk.
	DiskID string
)

// Epoch is the number of a placement; a larger one is newer. It is the revision that the placement
// record got in the key-value store, so no two placements of one fleet share one.
type Epoch uint64

// Bytes is an amount of data in bytes.
type Bytes int64

// Common amounts.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
)

// BlockSize is the unit in which a layer knows what it has.
const BlockSize = 4 * KiB

func randomHex(digits int) string {
	b := make([]byte, (digits+1)/2)
	rand.Read(b) // never fails: crypto/rand aborts the process instead
	return hex.EncodeToString(b)[:digits]
}

// NewMachineID returns a fresh random machine ID.
func NewMachineID() MachineID { return MachineID(randomHex(14)) }

// NewInstanceID returns a fresh random instance ID.
func NewInstanceID() InstanceID { return InstanceID(randomHex(26)) }

// NewVolumeID returns a fresh random volume ID.
func NewVolumeID() VolumeID { return VolumeID("vol_" + randomHex(16)) }

// NewReleaseID returns a fresh random release ID.
func NewReleaseID() ReleaseID { return ReleaseID("rel_" + randomHex(16)) }

// NewMigrationID returns a fresh random migration ID.
func NewMigrationID() MigrationID { return MigrationID("mig_" + randomHex(16)) }

// NewDeployID returns a fresh random deploy ID.
func NewDeployID() DeployID { return DeployID("dpl_" + randomHex(16)) }

// NewDrainID returns a fresh random drain ID.
func NewDrainID() DrainID { return DrainID("drn_" + randomHex(16)) }

// RootDisk returns the identity of a machine's root disk.
func RootDisk(m MachineID) DiskID { return DiskID(rootDiskPrefix + string(m)) }

// rootDiskPrefix begins the IDs of root disks, and of no others.
const rootDiskPrefix = "root_"

// IsRoot reports whether a disk is the root disk of a machine.
func (d DiskID) IsRoot() bool { return strings.HasPrefix(string(d), rootDiskPrefix) }

// Disk returns the identity of the volume as a disk.
func (v VolumeID) Disk() DiskID { return DiskID(v) }

// LayerFor names the layer that holds a disk on a host: the disk's own name where the disk was made, and the
// disk with the migration that brought it elsewhere. A disk that returns to a host it left gets a new layer there,
// never the old one.
func LayerFor(d DiskID, m MigrationID) LayerID {
	if m == "" {
		return LayerID(d)
	}
	return LayerID(string(d) + "." + strings.TrimPrefix(string(m), "mig_"))
}

// RoundLayer names the frozen layer that a round of a late migration makes, on the source and, as its copy, on the target.
func RoundLayer(d DiskID, m MigrationID, round int) LayerID {
	return LayerFor(d, m) + LayerID(".r"+strconv.Itoa(round))
}

// ValidMachineID reports whether s has the form of a machine's ID: 14 digits from 0 to f.
func ValidMachineID(s string) bool { return len(s) == 14 && strings.Trim(s, "0123456789abcdef") == "" }

// ValidName reports whether s can name an app, a machine, a host or a region: a DNS label of
// lower-case letters, digits and hyphens, 63 characters at most (RFC 1123, section 2.1).
func ValidName(s string) bool {
	return len(s) <= 63 && made(s, "-") && !strings.HasPrefix(s, "-") && !strings.HasSuffix(s, "-")
}

// ValidVolumeName reports whether s can name a volume: lower-case letters, digits and underscores, 30 at most.
func ValidVolumeName(s string) bool { return len(s) <= 30 && made(s, "_") }

// made reports whether s is made of lower-case letters, digits and the other characters, one at least. (A regular expression would be
// compiled at each start of drover-init, which is part of every interruption.)
func made(s, others string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune(others, c) {
			return false
		}
	}
	return s != ""
}
