package network

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"path/filepath"
	"reflect"
	"time"

	"drover"
	"drover/internal/durable"
	"drover/mesh"
)

// identityVersion is the version of identity.json. A program that knows of one key only reads version 1, which a host has until it gets another.
const identityVersion = 2

// identityFile is who this host is. Only its owner may read it.
type identityFile struct {
	Version    int    `json:"version"`
	Instance   string `json:"instance"`
	PrivateKey string `json:"private_key"`
	// KeyNumber is how many keys the host had before, KeySince since when it has this one.
	KeyNumber uint64    `json:"key_number,omitempty"`
	KeySince  time.Time `json:"key_since,omitzero"`
	// PeopleKey is the private key by which people's peers know the host; empty while that is PrivateKey.
	PeopleKey string `json:"people_key,omitempty"`
	// NextKey is the private key that is to be the next; Claimed: the fleet knows that it is this host's.
	NextKey string `json:"next_key,omitempty"`
	Claimed bool   `json:"claimed,omitempty"`
	// Rotation is the one under way, or the last.
	Rotation *drover.KeyRotation `json:"rotation,omitempty"`
	// Allotted is what the fleet gave the host; its number is 0 before.
	Allotted drover.HostIdentity `json:"allotted,omitzero"`
}

// identity is a host's name, keys and number.
type identity struct {
	path              string
	file              identityFile
	key, next, people mesh.PrivateKey
}

// loadIdentity reads who this host is, or makes up what it can when it starts for the first time. What was allotted to a host of another name (of which this
// one has the data directory) is not this host's: it has to join.
func loadIdentity(dir string, host drover.HostID) (*identity, error) {
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
	if id.file.Version < 1 || id.file.Version > identityVersion {
		return nil, drover.Errorf(drover.Precondition, "%s has version %d, this program knows version %d", id.path, id.file.Version, identityVersion)
	}
	if id.file.Allotted.Host != host {
		id.file.Allotted = drover.HostIdentity{}
	}
	return id, id.parse()
}

// parse reads the keys of the file.
func (id *identity) parse() error {
	id.key, id.next, id.people = mesh.PrivateKey{}, mesh.PrivateKey{}, mesh.PrivateKey{}
	for text, into := range map[string]*mesh.PrivateKey{id.file.PrivateKey: &id.key, id.file.NextKey: &id.next, id.file.PeopleKey: &id.people} {
		if text == "" && into != &id.key {
			continue
		}
		var err error
		if *into, err = mesh.ParsePrivateKey(text); err != nil {
			return err
		}
	}
	return nil
}

func (id *identity) makeUp() error {
	key, err := mesh.NewPrivateKey()
	if err != nil {
		return err
	}
	b := make([]byte, 16)
	rand.Read(b) // never fails: crypto/rand aborts the process instead
	id.key, id.file = key, identityFile{Version: 1, Instance: hex.EncodeToString(b), PrivateKey: key.Reveal(), KeySince: time.Now().UTC()}
	return id.replace(id.file)
}

// replace stores the file, and goes by it from then on.
func (id *identity) replace(file identityFile) error {
	if file.Version = 1; file.Rotation != nil {
		file.Version = identityVersion
	}
	if err := durable.WriteJSON(id.path, file, 0o600); err != nil {
		return drover.Errorf(drover.Internal, "cannot store who this host is: %w", err)
	}
	id.file = file
	return nil
}

// identity is what the fleet is to know of this host.
func (id *identity) identity(host drover.HostID, address string) drover.HostIdentity {
	want := drover.HostIdentity{Host: host, Instance: id.file.Instance, PublicKey: id.key.Public(), KeyNumber: id.file.KeyNumber, Address: address, Rotation: id.file.Rotation}
	if id.file.NextKey != "" {
		want.NextKey = id.next.Public()
	}
	return want
}

// told reports whether the fleet knows of the key.
func (id *identity) told() bool {
	a, last := id.file.Allotted, id.file.Rotation
	return a.PublicKey == id.key.Public() && a.NextKey == "" && (last == nil || a.Rotation != nil && a.Rotation.ID == last.ID && a.Rotation.Running() == last.Running())
}

// allotted stores what the fleet has written down.
func (id *identity) allotted(got drover.HostIdentity) error {
	file := id.file
	file.Allotted, file.Claimed = got, id.file.NextKey != "" && got.NextKey == id.next.Public()
	if reflect.DeepEqual(file, id.file) {
		return nil
	}
	return id.replace(file)
}

// mesh is what other hosts are told of the keys and the address.
func (id *identity) mesh() drover.HostMesh {
	f := id.file
	m := drover.HostMesh{Number: f.Allotted.Number, PrivateAddress: f.Allotted.PrivateAddress, PublicKey: id.key.Public(), KeyNumber: f.KeyNumber}
	if f.Claimed && !f.Rotation.Canceled() {
		m.NextKey = id.next.Public()
	}
	if f.PeopleKey != "" {
		m.PeopleKey = id.people.Public()
	}
	return m
}

func (id *identity) peoplePublic() string {
	if id.file.PeopleKey != "" {
		return id.people.Public()
	}
	return id.key.Public()
}
