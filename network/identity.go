package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"path/filepath"

	"drover"
	"drover/internal/durable"
	"drover/mesh"
)

// identityVersion is the version of identity.json.
const identityVersion = 1

// identityFile is who this host is. Only its owner may read it.
type identityFile struct {
	Version    int    `json:"version"`
	Instance   string `json:"instance"`
	PrivateKey string `json:"private_key"`
	// Allotted is what the fleet gave the host; its number is 0 before.
	Allotted drover.HostIdentity `json:"allotted,omitzero"`
}

// identity is a host's name, key and number.
type identity struct {
	path string
	file identityFile
	key  mesh.PrivateKey
}

// loadIdentity reads who this host is, or makes up what it can when it starts for the first time.
func loadIdentity(dir string) (*identity, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot make the directory %q: %w", dir, err)
	}
	if err := durable.RemoveTemp(dir); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot clean the directory %q: %w", dir, err)
	}
	id := &identity{path: filepath.Join(dir, "identity.json")}
	err := durable.ReadJSON(id.path, &id.file)
	if errors.Is(err, fs.ErrNotExist) {
		return id, id.makeUp()
	}
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot read who this host is: %w", err)
	}
	if id.file.Version != identityVersion {
		return nil, drover.Errorf(drover.Precondition, "%s has version %d, this program knows version %d", id.path, id.file.Version, identityVersion)
	}
	id.key, err = mesh.ParsePrivateKey(id.file.PrivateKey)
	return id, err
}

func (id *identity) makeUp() error {
	key, err := mesh.NewPrivateKey()
	if err != nil {
		return err
	}
	b := make([]byte, 16)
	rand.Read(b) // never fails: crypto/rand aborts the process instead
	id.key, id.file = key, identityFile{Version: identityVersion, Instance: hex.EncodeToString(b), PrivateKey: key.Reveal()}
	return id.store()
}

func (id *identity) store() error {
	if err := durable.WriteJSON(id.path, id.file, 0o600); err != nil {
		return drover.Errorf(drover.Internal, "cannot store who this host is: %w", err)
	}
	return nil
}

// claim proves that name and key are this host's alone, and stores what it was allotted.
func (id *identity) claim(ctx context.Context, bus Bus, host drover.HostID, address string) error {
	ctx, cancel := context.WithTimeout(ctx, claimWait)
	defer cancel()
	got, err := bus.ClaimIdentity(ctx, drover.HostIdentity{Host: host, Instance: id.file.Instance, PublicKey: id.key.Public(), Address: address})
	if err != nil || got == id.file.Allotted {
		return err
	}
	id.file.Allotted = got
	return id.store()
}
