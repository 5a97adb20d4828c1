package natsbus

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"
	"time"

	"drover"
)

// hostCounter is the counter of hosts' numbers.
const hostCounter = "hosts"

// claimTries bounds how often something is tried again because others wrote meanwhile.
const claimTries = 50

// KeyOwner is the key of the record that says whose a public key is. No host's name has a dot.
func KeyOwner(publicKey string) string { return keyOwners + hex.EncodeToString([]byte(publicKey)) }

const keyOwners = "key."

func isKeyOwner(key string) bool { return strings.HasPrefix(key, keyOwners) }

// identityRequest is the request for an identity.
const identityRequest = "identity"

// identitySubject is where a host asks for an identity: only it may write there, so that nobody joins in another's name.
func identitySubject(host string) string { return "control.host." + host + "." + identityRequest }

// ClaimIdentity joins the fleet, or finds that this host has joined: it is allotted a number for its name, and name and key are proven to be nobody else's.
// Of want, all but the number, the private address and the time count. Conflict when another host has the name or the key, and says which; Unavailable when no control
// host answers. It may be repeated and cut anywhere: a number that nobody got is lost, nothing else.
func (h *HostBus) ClaimIdentity(ctx context.Context, want drover.HostIdentity) (got drover.HostIdentity, err error) {
	data, err := json.Marshal(want)
	if err != nil {
		return got, drover.Errorf(drover.Internal, "host %q cannot ask for its identity: %w", want.Host, err)
	}
	ctx, cancel := bounded(ctx, keyTimeout)
	defer cancel()
	body, err := h.conn.askAt(ctx, identitySubject(string(h.host)), "control", identityRequest, data)
	if err != nil {
		return got, err
	}
	if err := json.Unmarshal(body, &got); err != nil {
		return got, drover.Errorf(drover.Internal, "the identity of host %q cannot be read: %w", want.Host, err)
	}
	return got, nil
}

// registrar gives hosts their identities. It is the control side's.
type registrar struct {
	conn       *Conn
	identities *Bucket[drover.HostIdentity]
	counters   *Bucket[uint64]
	peers      *Bucket[drover.WireGuardPeer]
}

// ServeIdentities answers hosts that ask for their identity, until ctx ends. Of several control hosts one gets each request.
func ServeIdentities(ctx context.Context, conn *Conn) error {
	identities, counters := lazyBucket[drover.HostIdentity]{name: BucketIdentities}, lazyBucket[uint64]{name: BucketCounters}
	peers := lazyBucket[drover.WireGuardPeer]{name: BucketWireGuard}
	r := registrar{conn: conn}
	var err error
	if r.identities, err = identities.get(ctx, conn); err != nil {
		return err
	}
	if r.counters, err = counters.get(ctx, conn); err != nil {
		return err
	}
	if r.peers, err = peers.get(ctx, conn); err != nil {
		return err
	}
	return conn.serveAt(ctx, identitySubject("*"), "control", "control", identityRequest, func(ctx context.Context, data []byte) (any, error) {
		var want drover.HostIdentity
		if err := json.Unmarshal(data, &want); err != nil {
			return nil, drover.Errorf(drover.Invalid, "the request for an identity cannot be read: %w", err)
		}
		if subjectOf(ctx) != identitySubject(string(want.Host)) {
			return nil, drover.Errorf(drover.Denied, "a host asks for the identity of %q, which it is not", want.Host)
		}
		return r.claim(ctx, want)
	})
}

func (r registrar) claim(ctx context.Context, want drover.HostIdentity) (drover.HostIdentity, error) {
	var none drover.HostIdentity
	b := r.identities
	for range claimTries {
		have, rev, err := b.GetConfirmed(ctx, string(want.Host))
		switch {
		case err == nil && have.Instance != want.Instance:
			return none, drover.Errorf(drover.Conflict, "this host cannot join as %q: that is the name of another host, which joined from %s on %s",
				want.Host, have.Address, have.Since.Format(time.RFC3339)).
				WithHint("give this host an id of its own; if it replaces that one for good: drover network release %s", want.Host)
		case err == nil && have.Address == want.Address && have.Boot == want.Boot && sameKeys(have, want):
			return have, nil
		case err == nil && have.Boot != want.Boot:
			if err := r.bootEnded(ctx, have, want); err != nil {
				return none, err
			}
		case err != nil && !drover.Is(err, drover.NotFound):
			return none, err
		}
		next := want
		next.Number, next.PrivateAddress, next.Since = have.Number, have.PrivateAddress, have.Since
		if rev == 0 || next.Number == 0 {
			if next, err = r.newHost(ctx, want); err != nil {
				return none, err
			}
		}
		if err := r.claimKey(ctx, next, next.PublicKey); err != nil {
			return none, err
		}
		if next.NextKey != "" {
			if err := r.claimKey(ctx, next, next.NextKey); err != nil {
				return none, err
			}
		}
		if drover.Is(err, drover.NotFound) || rev == 0 {
			_, err = b.Create(ctx, string(want.Host), next)
		} else {
			_, err = b.Update(ctx, string(want.Host), next, rev)
		}
		if err == nil {
			return next, nil
		}
		if !drover.Is(err, drover.Conflict) && !drover.Is(err, drover.Exists) {
			return none, err
		}
	}
	return none, drover.Errorf(drover.Unavailable, "host %q has not joined: its record was written by others %d times in a row", want.Host, claimTries)
}

// sameKeys reports whether a record has the keys of a host, and how it came to them, as the host says.
func sameKeys(have, want drover.HostIdentity) bool {
	return have.PublicKey == want.PublicKey && have.KeyNumber == want.KeyNumber && have.NextKey == want.NextKey && reflect.DeepEqual(have.Rotation, want.Rotation)
}

// claimKey notes whose a public key is, before anybody is told of it. A key that a host has no more stays its own.
func (r registrar) claimKey(ctx context.Context, id drover.HostIdentity, key string) error {
	rev, err := r.identities.Create(ctx, KeyOwner(key), id)
	if err == nil {
		return r.notAPersons(ctx, id, key, rev)
	}
	if !drover.Is(err, drover.Exists) {
		return err
	}
	owner, rev, err := r.identities.GetConfirmed(ctx, KeyOwner(key))
	if err != nil {
		return err
	}
	if owner.Host != id.Host || owner.Instance != id.Instance {
		return drover.Errorf(drover.Conflict, "host %q cannot join: its key is that of host %q, which joined from %s", id.Host, owner.Host, owner.Address).
			WithHint("a data directory must not be copied from one host to another: remove mesh/identity.json from this one's")
	}
	return r.notAPersons(ctx, id, key, rev)
}

// notAPersons gives a key back that a person's peer has. Who claims one writes it down before looking whether the other side has it, hosts here and people where
// their peers are made, so that of two who do it at the same moment one finds the other.
func (r registrar) notAPersons(ctx context.Context, id drover.HostIdentity, key string, rev uint64) error {
	peer, _, err := r.peers.GetConfirmed(ctx, KeyOwner(key))
	if err == nil {
		peer, _, err = r.peers.GetConfirmed(ctx, PeerKey(peer.Organization, peer.Name))
	}
	if drover.Is(err, drover.NotFound) || err == nil && peer.PublicKey != key {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := r.identities.Delete(ctx, KeyOwner(key), rev); err != nil && !drover.Is(err, drover.Conflict) {
		return err
	}
	return drover.Errorf(drover.Conflict, "host %q cannot join: its key is that of the peer %q of organization %q", id.Host, peer.Name, peer.Organization).
		WithHint("remove mesh/identity.json from the host's data directory, so that it makes up a key of its own")
}

// newHost gives a host a number that none had.
func (r registrar) newHost(ctx context.Context, want drover.HostIdentity) (drover.HostIdentity, error) {
	counters := r.counters
	for range claimTries {
		last, rev, err := counters.Get(ctx, hostCounter)
		switch {
		case drover.Is(err, drover.NotFound):
			_, err = counters.Create(ctx, hostCounter, 1)
		case err == nil:
			_, err = counters.Update(ctx, hostCounter, last+1, rev)
		}
		if err == nil {
			address, err := drover.HostAddress(last + 1)
			want.Number, want.PrivateAddress, want.Since = last+1, address.String(), time.Now().UTC()
			return want, err
		}
		if !drover.Is(err, drover.Conflict) && !drover.Is(err, drover.Exists) {
			return want, err
		}
	}
	return want, drover.Errorf(drover.Unavailable, "no number for host %q: they were taken by others %d times in a row", want.Host, claimTries)
}

// FollowIdentities is FollowPlacements for who the hosts are by the word of the control side.
func (h *HostBus) FollowIdentities(ctx context.Context, fn func(drover.HostID, *drover.HostIdentity) error) error {
	return follow(ctx, h.conn, &h.identities, func(key string, id *drover.HostIdentity, _ uint64) error {
		if isKeyOwner(key) {
			return nil
		}
		return fn(drover.HostID(key), id)
	})
}

// FollowMoves is FollowPlacements with the time at which the store took each in.
func (h *HostBus) FollowMoves(ctx context.Context, fn func(id drover.MachineID, p *drover.Placement, stored time.Time) error) error {
	return followEntries(ctx, h.conn, &h.placements, func(e Entry[drover.Placement]) error {
		switch {
		case e.Synced:
			return fn("", nil, time.Time{})
		case e.Deleted:
			return fn(drover.MachineID(e.Key), nil, e.Created)
		}
		e.Value.Epoch = drover.Epoch(e.Revision)
		return fn(drover.MachineID(e.Key), &e.Value, e.Created)
	})
}

// FollowStatuses is FollowPlacements for what hosts say of machines. Of several hosts' words on one machine, that of the newest epoch is told.
func (h *HostBus) FollowStatuses(ctx context.Context, fn func(drover.MachineID, *drover.MachineStatus) error) error {
	said := map[drover.MachineID]map[drover.HostID]drover.MachineStatus{}
	return follow(ctx, h.conn, &h.status, func(key string, s *drover.MachineStatus, _ uint64) error {
		if key == "" {
			return fn("", nil)
		}
		id, host := SplitStatusKey(key)
		if said[id] == nil {
			said[id] = map[drover.HostID]drover.MachineStatus{}
		}
		if s == nil {
			delete(said[id], host)
		} else {
			said[id][host] = *s
		}
		var best *drover.MachineStatus
		for _, other := range said[id] {
			if best == nil || other.Epoch > best.Epoch {
				best = &other
			}
		}
		if best == nil {
			delete(said, id)
		}
		return fn(id, best)
	})
}
