package apitest

import (
	"context"

	"drover"
)

// CheckNetwork finds that one host has not heard of a move.
func (b *Backend) CheckNetwork(context.Context) (drover.NetworkCheck, error) {
	if err := b.begin("CheckNetwork"); err != nil {
		return drover.NetworkCheck{}, err
	}
	defer b.mu.Unlock()
	return drover.NetworkCheck{Hosts: []drover.NetworkHost{
		{Host: "h1", Checked: 2, Mesh: drover.MeshStatus{Routes: 2, SyncedAt: b.Now(), Links: []drover.MeshLink{{Host: "h2", State: "to-dead", Bad: true,
			Text: "packets from h1 to h2 do not arrive; those from h2 to h1 do"}}},
			Stale: []drover.StaleRoute{{Machine: "00000000000001", Address: "fdaa:0:1:0:1::2", Believed: "h1", Placed: "h2"}}},
		{Host: "h2", Problem: `host "h2" does not answer`},
	}}, nil
}

// ReleaseHost is refused: all hosts that there are, are heard.
func (b *Backend) ReleaseHost(_ context.Context, host drover.HostID) (drover.HostIdentity, error) {
	if err := b.begin("ReleaseHost"); err != nil {
		return drover.HostIdentity{}, err
	}
	defer b.mu.Unlock()
	if _, err := b.hostLocked(host); err != nil {
		return drover.HostIdentity{}, err
	}
	return drover.HostIdentity{}, drover.Errorf(drover.Precondition, "host %q is heard: its name is its own", host)
}

// RotateKey begins a rotation that waits for another host.
func (b *Backend) RotateKey(_ context.Context, host drover.HostID, by string, people bool) (drover.MeshKey, error) {
	if err := b.begin("RotateKey"); err != nil {
		return drover.MeshKey{}, err
	}
	defer b.mu.Unlock()
	if _, err := b.hostLocked(host); err != nil {
		return drover.MeshKey{}, err
	}
	if b.keys[host].Rotation.Canceled() {
		return drover.MeshKey{}, drover.Errorf(drover.Precondition, "the next key of host %q is still being taken back", host)
	}
	key := drover.MeshKey{PublicKey: "a", PeopleKey: "a", Rotation: &drover.KeyRotation{ID: "r1", By: by, People: people, StartedAt: b.Now()}, WaitsFor: []drover.HostID{"h2"}}
	b.keys[host] = key
	return key, nil
}

// CancelKey takes back what was begun.
func (b *Backend) CancelKey(_ context.Context, host drover.HostID, by string) (drover.MeshKey, error) {
	if err := b.begin("CancelKey"); err != nil {
		return drover.MeshKey{}, err
	}
	defer b.mu.Unlock()
	if _, err := b.hostLocked(host); err != nil {
		return drover.MeshKey{}, err
	}
	key, rotates := b.keys[host]
	if !rotates {
		return drover.MeshKey{}, drover.Errorf(drover.Precondition, "host %q is about to have no other key: there is nothing to cancel", host)
	}
	r := *key.Rotation
	r.CanceledAt, r.CanceledBy = b.Now(), by
	key.Rotation = &r
	b.keys[host] = key
	return key, nil
}

// HostKey finds that a rotation has ended.
func (b *Backend) HostKey(_ context.Context, host drover.HostID) (drover.MeshKey, error) {
	if err := b.begin("HostKey"); err != nil {
		return drover.MeshKey{}, err
	}
	defer b.mu.Unlock()
	if _, err := b.hostLocked(host); err != nil {
		return drover.MeshKey{}, err
	}
	key, rotates := b.keys[host]
	if !rotates {
		return drover.MeshKey{PublicKey: "a", PeopleKey: "a"}, nil
	}
	done := *key.Rotation
	done.EndedAt = b.Now()
	if done.Canceled() {
		return drover.MeshKey{PublicKey: "a", PeopleKey: "a", Rotation: &done}, nil
	}
	return drover.MeshKey{PublicKey: "b", Number: 1, Since: b.Now(), PeopleKey: "a", Rotation: &done}, nil
}
