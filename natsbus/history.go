package natsbus

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"drover"
)

// History reads the revisions of a key that the bucket kept (BucketOptions.History), oldest first; none when the key has no record.
func (b *Bucket[T]) History(ctx context.Context, key string) ([]T, error) {
	ctx, cancel := bounded(ctx, opTimeout)
	defer cancel()
	entries, err := b.kv.History(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, translate(err, b.doing("read the history of", key))
	}
	var values []T
	for _, e := range entries {
		if e.Operation() != jetstream.KeyValuePut {
			values = nil // what was before a deletion is gone
			continue
		}
		var v T
		if err := json.Unmarshal(e.Value(), &v); err != nil {
			return nil, drover.Errorf(drover.Internal, "%s: a record is broken: %w", b.doing("read the history of", key), err)
		}
		values = append(values, v)
	}
	return values, nil
}
