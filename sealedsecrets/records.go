package sealedsecrets

import (
	"context"
	"maps"
	"slices"
	"time"

	"drover"
)

// Records is the store: a bucket that changes by compare-and-set, whose revisions grow. Errors are those of natsbus.Bucket: NotFound, Exists, Conflict,
// Unavailable.
type Records interface {
	// Get reads the newest record. What it returns was true at some moment after the call.
	Get(ctx context.Context, key string) (Record, uint64, error)
	Create(ctx context.Context, key string, r Record) (uint64, error)
	Update(ctx context.Context, key string, r Record, rev uint64) (uint64, error)
	Delete(ctx context.Context, key string, rev uint64) error
	Keys(ctx context.Context) ([]string, error)
}

// Record is the secrets of one app.
type Record struct {
	// Key is what the values are encrypted with.
	Key     drover.KeyID     `json:"key"`
	Secrets map[string]entry `json:"secrets"`
}

// entry is one secret.
type entry struct {
	Sealed    []byte    `json:"sealed"`
	Digest    string    `json:"digest"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// describe tells what is in a record.
func (r Record) describe(rev uint64) drover.SecretSet {
	set := drover.SecretSet{Version: rev, Secrets: []drover.Secret{}}
	for _, name := range slices.Sorted(maps.Keys(r.Secrets)) {
		e := r.Secrets[name]
		set.Secrets = append(set.Secrets, drover.Secret{Name: name, Digest: e.Digest, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt})
	}
	return set
}
