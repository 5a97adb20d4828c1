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

// metaVersion is the version of meta.json that this program reads and writes.
const metaVersion = 1

// maxSize is what the largest file of ext4 holds: 16 TiB less one block.
const maxSize = 16<<40 - blockSize

// meta is the durable state of a layer beside its data: meta.json in its directory.
type meta struct {
	Version int `json:"version"`
	// Checksum is the CRC-32C of the file's JSON with an empty checksum.
	Checksum string `json:"checksum"`
	// Incarnation tells this layer from an earlier one of the same ID.
	Incarnation string `json:"incarnation"`
	// Spec is what was asked for; the parent's address may have been renewed.
	Spec  drover.LayerSpec  `json:"spec"`
	State drover.LayerState `json:"state"`
	// Mapped: there is a map, because blocks may be absent.
	Mapped bool `json:"mapped"`
	// ParentDone: nothing is needed of the parent any more.
	ParentDone bool `json:"parent_done,omitempty"`
	// Activated: the layer was opened or hydrated once, so its parent does not change any more.
	Activated bool `json:"activated,omitempty"`
	// Writer is the epoch at which the layer is open, 0 if it is not.
	Writer drover.Epoch `json:"writer,omitempty"`
	// FrozenAt is the fence at the time of the freeze.
	FrozenAt  drover.Epoch     `json:"frozen_at,omitempty"`
	Exports   []drover.HostID  `json:"exports,omitempty"`
	Hydration *hydrationRecord `json:"hydration,omitempty"`
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
	Total     drover.Bytes `json:"total,omitempty"`
	Skipped   drover.Bytes `json:"skipped,omitempty"`
	StartedAt time.Time    `json:"started_at,omitzero"`
	DoneAt    time.Time    `json:"done_at,omitzero"`
}

// clone copies the record so that it can be changed.
func (m *meta) clone() *meta {
	c := *m
	c.Exports = slices.Clone(m.Exports)
	if m.Hydration != nil {
		h := *m.Hydration
		c.Hydration = &h
	}
	return &c
}

// parent returns the parent that is still needed, nil if none is.
func (m *meta) parent() *drover.Export {
	if m.ParentDone {
		return nil
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
	if version.Version != metaVersion {
		return nil, fmt.Errorf("the record has version %d; this program knows version %d", version.Version, metaVersion)
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
	if m.Incarnation == "" || len(m.Incarnation) > incarnationLen {
		return fmt.Errorf("the record has the incarnation %q", m.Incarnation)
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
	if a.ID != b.ID || a.Disk != b.Disk || a.Size != b.Size || a.Base != b.Base || (a.Parent == nil) != (b.Parent == nil) {
		return false
	}
	return a.Parent == nil || a.Parent.Layer == b.Parent.Layer && a.Parent.Host == b.Parent.Host &&
		a.Parent.Name == b.Parent.Name && a.Parent.Size == b.Parent.Size
}
