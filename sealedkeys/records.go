package sealedkeys

import (
	"context"
	"time"

	"drover"
)

// Records is the store: a bucket that changes by compare-and-set. Errors are those of natsbus.Bucket: NotFound, Exists, Conflict, Unavailable.
type Records interface {
	// Get reads the newest record. What it returns was true at some moment after the call.
	Get(ctx context.Context, key string) (Record, uint64, error)
	Create(ctx context.Context, key string, r Record) (uint64, error)
	Update(ctx context.Context, key string, r Record, rev uint64) (uint64, error)
	Delete(ctx context.Context, key string, rev uint64) error
	// Keys lists what is there: nothing is missing that was there before the call.
	Keys(ctx context.Context) ([]string, error)
}

// Record is one record of the store. One of its fields is set.
type Record struct {
	Fleet   *Fleet   `json:"fleet,omitempty"`
	Control *Control `json:"control,omitempty"`
	Data    *Data    `json:"data,omitempty"`
}

// Fleet is the fleet key.
type Fleet struct {
	// Generations, oldest first. There is more than one only while the older ones' keys are being wrapped anew.
	Generations []Generation `json:"generations"`
}

// Generation is one fleet key, sealed.
type Generation struct {
	Number int                      `json:"number"`
	MadeAt time.Time                `json:"made_at"`
	Sealed map[drover.HostID]Sealed `json:"sealed"`
}

// Sealed is a fleet key for one control host. Fingerprint tells which of the host's keys opens it.
type Sealed struct {
	Fingerprint []byte `json:"fingerprint"`
	Sealed      []byte `json:"sealed"`
}

// Control is a control host.
type Control struct {
	Certificate []byte `json:"certificate"`
}

// Data is the key of a volume.
type Data struct {
	Generation int       `json:"generation"`
	Wrapped    []byte    `json:"wrapped"`
	CreatedAt  time.Time `json:"created_at"`
	// Doomed: somebody is about to delete it, if nothing needs it.
	Doomed bool `json:"doomed,omitempty"`
}

// The keys of the records.
const (
	fleetKey      = "fleet"
	controlPrefix = "control."
)

// last returns the generation to wrap with.
func (f *Fleet) last() Generation { return f.Generations[len(f.Generations)-1] }
