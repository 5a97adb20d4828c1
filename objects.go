package drover

import (
	"context"
	"strings"
)

// ObjectStore keeps objects under names, whole. It is what snapshots are kept in. Names are made of letters, digits, dots, hyphens,
// underscores and slashes. An object never changes: what is put twice under one name is the same both times.
//
// Errors are *Error: NotFound for a name that is not there, Unavailable when the store does not answer (the caller tries again),
// Exhausted when it is full, Denied for wrong credentials. All methods are safe for concurrent use.
type ObjectStore interface {
	// Put stores an object durably. It may be repeated.
	Put(ctx context.Context, name string, data []byte) error
	// Get reads an object, at most MaxObject bytes.
	Get(ctx context.Context, name string) ([]byte, error)
	// Has tells whether an object is there.
	Has(ctx context.Context, name string) (bool, error)
	// List calls fn for each object whose name begins with the prefix, in no order. An error of fn ends it.
	List(ctx context.Context, prefix string, fn func(name string, size Bytes) error) error
	// Delete removes an object. One that is not there is no error.
	Delete(ctx context.Context, name string) error
}

// MaxObject bounds the size of an object.
const MaxObject = 64 * MiB

// maxObjectName bounds the length of an object's name.
const maxObjectName = 900

// CheckObjectName refuses what is no name of an object, so that all stores refuse the same.
func CheckObjectName(name string) error {
	wrong := name == "" || len(name) > maxObjectName
	for part := range strings.SplitSeq(name, "/") {
		wrong = wrong || part == "" || part == "." || part == ".."
	}
	for _, r := range name {
		wrong = wrong || !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-/", r))
	}
	if wrong {
		return Errorf(Invalid, "%.100q is no name of an object: letters, digits, dots, hyphens, underscores and single slashes are expected", name)
	}
	return nil
}
