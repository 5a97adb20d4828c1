package manifest

import (
	"regexp"
	"strings"

	"drover"
)

// Kind is what an object holds.
type Kind string

// The kinds, as they appear in names.
const (
	KindChunk    Kind = "chunks"
	KindPage     Kind = "pages"
	KindManifest Kind = "manifests"
)

const root = "volumes/"

// idRE is the form of the IDs that may be parts of names: nothing that means something to a store or a file system.
var idRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$`)

// CheckVolume refuses what cannot be part of an object's name.
func CheckVolume(id drover.VolumeID) error {
	if !idRE.MatchString(string(id)) {
		return drover.Errorf(drover.Invalid, "%q is no volume ID: letters, digits, dots, hyphens and underscores are expected", id)
	}
	return nil
}

// CheckSnapshot refuses what cannot be part of an object's name.
func CheckSnapshot(id drover.SnapshotID) error {
	if !idRE.MatchString(string(id)) {
		return drover.Errorf(drover.Invalid, "%q is no snapshot ID: letters, digits, dots, hyphens and underscores are expected", id)
	}
	return nil
}

// Prefix is what the names of all objects of a volume, or of one kind of them, begin with. An empty kind is all.
func Prefix(volume drover.VolumeID, kind Kind) string {
	if kind == "" {
		return root + string(volume) + "/"
	}
	return root + string(volume) + "/" + string(kind) + "/"
}

// ManifestName is the name of a snapshot's manifest.
func ManifestName(volume drover.VolumeID, snapshot drover.SnapshotID) string {
	return Prefix(volume, KindManifest) + string(snapshot)
}

// PageName is the name of a page.
func PageName(volume drover.VolumeID, h Hash) string { return Prefix(volume, KindPage) + h.String() }

// ChunkName is the name of a chunk.
func ChunkName(volume drover.VolumeID, h Hash) string { return Prefix(volume, KindChunk) + h.String() }

// Name is an object's name taken apart.
type Name struct {
	Volume drover.VolumeID
	Kind   Kind
	// Snapshot is set for a manifest, Hash for the others.
	Snapshot drover.SnapshotID
	Hash     Hash
}

// ParseName takes a name apart. Names of any other form are Invalid.
func ParseName(s string) (n Name, err error) {
	parts := strings.Split(s, "/")
	if len(parts) != 4 || parts[0]+"/" != root {
		return n, drover.Errorf(drover.Invalid, "%q is no name of a snapshot's object", s)
	}
	n.Volume, n.Kind = drover.VolumeID(parts[1]), Kind(parts[2])
	if err := CheckVolume(n.Volume); err != nil {
		return Name{}, err
	}
	switch n.Kind {
	case KindManifest:
		n.Snapshot = drover.SnapshotID(parts[3])
		err = CheckSnapshot(n.Snapshot)
	case KindChunk, KindPage:
		n.Hash, err = ParseHash(parts[3])
	default:
		err = drover.Errorf(drover.Invalid, "%q is no name of a snapshot's object: unknown kind %q", s, parts[2])
	}
	if err != nil {
		return Name{}, err
	}
	return n, nil
}
