package drover

import (
	"context"
	"time"
)

// KeyStore keeps the keys of volumes, on the control side. A key is CipherKeySize random bytes; it never changes, and is named by its ID.
//
// Errors are *Error: NotFound for a key that is not there, Unavailable when the store cannot be read or written now (the caller tries again). All methods
// may be repeated, and are safe for concurrent use.
type KeyStore interface {
	// CreateKey makes a key, durably, unless it is there.
	CreateKey(ctx context.Context, id KeyID) error
	// Key returns a key.
	Key(ctx context.Context, id KeyID) ([]byte, error)
	// ClaimKey makes sure that the key is there and stays. It is called after a record that names the key was written: a DeleteKey that did not
	// see the record is stopped by it.
	ClaimKey(ctx context.Context, id KeyID) error
	// DeleteKey destroys a key, and with it all that was encrypted with it, unless used says that it is needed. used must look at what the store of
	// records holds when it is called. A key that is not there is no error.
	DeleteKey(ctx context.Context, id KeyID, used func(ctx context.Context) (bool, error)) error
}

// KeyInfo describes a key, not the key itself.
type KeyInfo struct {
	ID KeyID `json:"id"`
	// Generation is that of the fleet key which the key is wrapped with.
	Generation int       `json:"generation"`
	CreatedAt  time.Time `json:"created_at"`
}

// Keyring describes all keys of the fleet.
type Keyring struct {
	// Generation is that of the fleet key now. Hosts can read it. Rotating: keys of older generations are being wrapped anew.
	Generation int       `json:"generation"`
	MadeAt     time.Time `json:"made_at"`
	Hosts      []HostID  `json:"hosts"`
	Rotating   bool      `json:"rotating,omitempty"`
	// Keys is every key of a volume, oldest first.
	Keys []KeyInfo `json:"keys"`
}

// KeyRequest is a host's request for the key of a volume that it has or is to get. Certificate is the one that the answer is sealed to.
type KeyRequest struct {
	Key         KeyID  `json:"key"`
	Host        HostID `json:"host"`
	Certificate []byte `json:"certificate"`
}

// SealedKey is the answer: the key, readable for the host alone, and signed by a control host, whose certificate is given.
type SealedKey struct {
	Sealed      []byte `json:"sealed"`
	Certificate []byte `json:"certificate"`
	Signature   []byte `json:"signature"`
}
