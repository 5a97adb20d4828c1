package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"drover"
	"drover/internal/durable"
)

const (
	settingsFile = "settings.json"
	// settingsVersion is the version that this program reads and writes.
	settingsVersion = 1
	// defaultStallAfter is StorageSettings.StallAfter's default.
	defaultStallAfter = time.Minute
)

// settings are what an operator set for the host's storage as a whole.
type settings struct {
	mu  sync.Mutex // held by the one who writes the file
	now atomic.Pointer[drover.StorageSettings]
	// hydration is the limit of all hydrations together.
	hydration *bucket
}

// settingsRecord is their durable form.
type settingsRecord struct {
	Version  int                    `json:"version"`
	Settings drover.StorageSettings `json:"settings"`
	Checksum string                 `json:"checksum"`
}

func (r settingsRecord) sum() (string, error) {
	r.Checksum = ""
	b, err := json.Marshal(r)
	return fmt.Sprintf("%08x", crc32.Checksum(b, crcTable)), err
}

func parseSettings(b []byte) (drover.StorageSettings, error) {
	var r settingsRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return r.Settings, fmt.Errorf("the settings are damaged: %w", err)
	}
	if r.Version != settingsVersion {
		return r.Settings, fmt.Errorf("the settings have version %d; this program knows version %d", r.Version, settingsVersion)
	}
	if sum, err := r.sum(); err != nil || sum != r.Checksum {
		return r.Settings, fmt.Errorf("the settings are damaged: checksum %s where %s is expected", r.Checksum, sum)
	}
	return r.Settings, checkSettings(r.Settings)
}

func checkSettings(s drover.StorageSettings) error {
	if s.HydrationLimit < 0 {
		return drover.Errorf(drover.Invalid, "the limit %d of all hydrations is negative", s.HydrationLimit).WithField("hydration_limit")
	}
	if s.StallAfter < 0 {
		return drover.Errorf(drover.Invalid, "the time %v after which a hydration stands still is negative", time.Duration(s.StallAfter)).WithField("stall_after")
	}
	return nil
}

// loadSettings reads the settings of a pool. Damaged ones are no reason to keep every disk from its guest: the defaults hold, which the
// log says.
func (e *env) loadSettings() {
	e.settings = &settings{hydration: newBucket(0)}
	var s drover.StorageSettings
	b, err := os.ReadFile(filepath.Join(e.pool, settingsFile))
	if err == nil {
		s, err = parseSettings(b)
	}
	if err != nil {
		s = drover.StorageSettings{}
		if !errors.Is(err, fs.ErrNotExist) {
			e.cfg.Log.Error("the defaults hold for the host's storage", "err", err)
		}
	}
	e.settings.use(s)
}

func (s *settings) use(now drover.StorageSettings) {
	s.now.Store(&now)
	s.hydration.set(now.HydrationLimit)
}

// stallAfter is how long a hydration may stand.
func (s *settings) stallAfter() time.Duration {
	if d := time.Duration(s.now.Load().StallAfter); d != 0 {
		return d
	}
	return defaultStallAfter
}

// set changes the settings, durably.
func (p *pool) set(_ context.Context, now *drover.StorageSettings) error {
	if now == nil {
		return drover.Errorf(drover.Invalid, "there are no settings in the request").WithField("settings")
	}
	if err := checkSettings(*now); err != nil {
		return err
	}
	s := p.settings
	s.mu.Lock()
	defer s.mu.Unlock()
	r := settingsRecord{Version: settingsVersion, Settings: *now}
	var err error
	if r.Checksum, err = r.sum(); err == nil {
		err = p.reserve.with(func() error { return durable.WriteJSON(filepath.Join(p.pool, settingsFile), r, 0o600) })
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot store the settings of the pool %s: %w", p.pool, err)
	}
	s.use(*now)
	p.cfg.Log.Info("storage settings changed", "hydration_limit", int64(now.HydrationLimit), "stall_after", s.stallAfter())
	return nil
}
