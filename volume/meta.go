package volume

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"regexp"
	"slices"
	"time"

	"drover"
	"drover/internal/durable"
)

// metaVersion is the version of meta.json that this program writes. It reads version 1 too, which has a subset of the fields.
const metaVersion = 2

// maxSize is what the largest file of ext4 holds: 16 TiB less one block.
const maxSize = 16<<40 - blockSize

// meta is the durable state of a layer beside its data: meta.json in its directory.
type meta struct {
	Version int `json:"version"`
	// Checksum is the CRC-32C of the file's JSON with an empty checksum.
	Checksum string `json:"checksum"`
	// Incarnation tells what the layer holds from what any other layer, or this one earlier, holds. Its maps carry it.
	Incarnation string `json:"incarnation"`
	// Files ends the names of the files that hold it ("data.FILES"); empty for the plain names.
	Files string `json:"files,omitempty"`
	// Spec is what the layer is now; the parent's address may have been renewed.
	Spec drover.LayerSpec `json:"spec"`
	// Asked is what was asked for, when that is something else by now: the layer was split, took its base in, or grew.
	Asked *drover.LayerSpec `json:"asked,omitempty"`
	// SplitFrom is the layer whose content this frozen layer took over.
	SplitFrom drover.LayerID `json:"split_from,omitempty"`
	// Unwanted: the layer was deleted, and stays only until the one layer over it has taken it in.
	Unwanted bool `json:"unwanted,omitempty"`
	// Absorbed: the layer over it is taking it in, so that the data file has some blocks of that layer. Once no layer names it as its base,
	// the file is that layer's, and must not be touched under this name.
	Absorbed bool `json:"absorbed,omitempty"`
	// Wipe: the data is overwritten before it is given up.
	Wipe  bool              `json:"wipe,omitempty"`
	State drover.LayerState `json:"state"`
	// Mapped: there is a map, because blocks may be absent.
	Mapped bool `json:"mapped"`
	// ParentDone: nothing is needed of the parent any more.
	ParentDone bool `json:"parent_done,omitempty"`
	// Activated: the layer was opened or hydrated once, so its parent does not change any more.
	Activated bool `json:"activated,omitempty"`
	// Writer is the epoch at which the layer is open, 0 if it is not.
	Writer drover.Epoch `json:"writer,omitempty"`
	// Prepared is the socket of a VM that may connect before the layer is open.
	Prepared *preparedRecord `json:"prepared,omitempty"`
	// FrozenAt is the fence at the time of the freeze.
	FrozenAt  drover.Epoch     `json:"frozen_at,omitempty"`
	Exports   []drover.HostID  `json:"exports,omitempty"`
	Hydration *hydrationRecord `json:"hydration,omitempty"`
	// Loss is what was written off of the parent; nil while it may still answer.
	Loss *lossRecord `json:"loss,omitempty"`
	// SumsOf is the incarnation that the file of checksums names, if the content that it was made for had another than this one: it
	// stays with its data file when a layer grows or takes its base in.
	SumsOf string `json:"sums_of,omitempty"`
	// KeyCheck tells the key that the layer was first opened with from any other.
	KeyCheck string `json:"key_check,omitempty"`
	// Upload is what is known of the layer's way into the object store.
	Upload *uploadRecord `json:"upload,omitempty"`
	// Verification is the newest comparison; one that is not done goes on after a restart. Against is the snapshot that it is with.
	Verification *drover.Verification   `json:"verification,omitempty"`
	Against      *drover.SnapshotSource `json:"against,omitempty"`
}

// hydrationRecord is what is remembered of a hydration.
type hydrationRecord struct {
	// Started: it was asked for, and goes on after a restart.
	Started   bool         `json:"started"`
	Limit     drover.Bytes `json:"limit,omitempty"`
	Paused    bool         `json:"paused,omitempty"`
	Copied    drover.Bytes `json:"copied"`
	Wire      drover.Bytes `json:"wire,omitempty"`
	Total     drover.Bytes `json:"total,omitempty"`
	Skipped   drover.Bytes `json:"skipped,omitempty"`
	Verified  drover.Bytes `json:"verified,omitempty"`
	Repaired  drover.Bytes `json:"repaired,omitempty"`
	StartedAt time.Time    `json:"started_at,omitzero"`
	DoneAt    time.Time    `json:"done_at,omitzero"`
}

// clone copies the record so that it can be changed.
func (m *meta) clone() *meta {
	c := *m
	c.Exports = slices.Clone(m.Exports)
	if m.Asked != nil {
		a := *m.Asked
		c.Asked = &a
	}
	if m.Hydration != nil {
		h := *m.Hydration
		c.Hydration = &h
	}
	if m.Upload != nil {
		u := *m.Upload
		u.Pages = slices.Clone(u.Pages)
		c.Upload = &u
	}
	return &c
}

// asked returns what was asked for when the layer was made.
func (m *meta) asked() drover.LayerSpec {
	if m.Asked != nil {
		return *m.Asked
	}
	return m.Spec
}

// keepAsked is called before Spec is changed.
func (m *meta) keepAsked() {
	if m.Asked == nil {
		a := m.Spec
		m.Asked = &a
	}
}

// sumsOf is what the content's file of checksums must name.
func (m *meta) sumsOf() string {
	if m.SumsOf != "" {
		return m.SumsOf
	}
	return m.Incarnation
}

// parent returns the parent that is still needed, nil if none is.
func (m *meta) parent() *drover.Export {
	if m.ParentDone {
		return nil
	}
	return m.origin()
}

// origin returns what the layer is or was filled from; nil for nothing. For a snapshot it is an export of no host.
func (m *meta) origin() *drover.Export {
	if s := m.Spec.Snapshot; s != nil {
		return &drover.Export{Layer: drover.LayerID(s.Snapshot), Size: s.Size, Allocated: s.Data}
	}
	return m.Spec.Parent
}

func (m *meta) sum() (string, error) {
	c := *m
	c.Checksum = ""
	b, err := json.Marshal(c)
	return fmt.Sprintf("%08x", crc32.Checksum(b, crcTable)), err
}

// writeMeta writes the record durably.
func writeMeta(path string, m *meta) (err error) {
	m.Version = metaVersion
	if m.Checksum, err = m.sum(); err != nil {
		return err
	}
	return durable.WriteJSON(path, m, 0o600)
}

// readMeta reads and checks the record.
func readMeta(path string, id drover.LayerID) (*meta, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m, err := parseMeta(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if m.Spec.ID != id {
		return nil, fmt.Errorf("%s is that of layer %q", path, m.Spec.ID)
	}
	return m, nil
}

func parseMeta(b []byte) (*meta, error) {
	var version struct{ Version int }
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, fmt.Errorf("the record is damaged: %w", err)
	}
	if version.Version < 1 || version.Version > metaVersion {
		return nil, fmt.Errorf("the record has version %d; this program knows versions 1 to %d", version.Version, metaVersion)
	}
	m := &meta{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("the record is damaged: %w", err)
	}
	if sum, err := m.sum(); err != nil || sum != m.Checksum {
		return nil, fmt.Errorf("the record is damaged: checksum %s where %s is expected", m.Checksum, sum)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *meta) check() error {
	switch m.State {
	case drover.LayerReady, drover.LayerFrozen, drover.LayerImage:
	default:
		return fmt.Errorf("the record has the unknown state %q", m.State)
	}
	if len(m.Incarnation) > incarnationLen || !validLayerID(drover.LayerID(m.Incarnation)) { // it is part of file names
		return fmt.Errorf("the record has the incarnation %q", m.Incarnation)
	}
	if m.Files != "" && m.Files != m.Incarnation {
		return fmt.Errorf("the record names files of %q, its content is %q", m.Files, m.Incarnation)
	}
	if err := checkSize(m.Spec.Size); err != nil {
		return err
	}
	if !validLayerID(m.Spec.ID) {
		return fmt.Errorf("the record has the layer ID %q", m.Spec.ID)
	}
	return nil
}

func checkSize(n drover.Bytes) error {
	if n <= 0 || n > maxSize || n%blockSize != 0 {
		return fmt.Errorf("size %d is not a multiple of %d between %d and %d", n, blockSize, blockSize, int64(maxSize))
	}
	return nil
}

var layerRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$`)

// validLayerID keeps out whatever is not a plain file name, and "@", which export names use. Disks have names of the same form.
func validLayerID(id drover.LayerID) bool { return layerRE.MatchString(string(id)) }

// sameSpec reports whether a layer may be what a second request asks for. The parent's address and what it holds
// may have changed since.
func sameSpec(a, b drover.LayerSpec) bool {
	if a.ID != b.ID || a.Disk != b.Disk || a.Size != b.Size || a.Base != b.Base || !a.Cipher.Equal(b.Cipher) || (a.Parent == nil) != (b.Parent == nil) {
		return false
	}
	if (a.Snapshot == nil) != (b.Snapshot == nil) || a.Snapshot != nil && *a.Snapshot != *b.Snapshot {
		return false
	}
	return a.Parent == nil || a.Parent.Layer == b.Parent.Layer && a.Parent.Host == b.Parent.Host &&
		a.Parent.Name == b.Parent.Name && a.Parent.Since == b.Parent.Since && a.Parent.Size == b.Parent.Size
}
