package sealedkeys

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"drover"
	"drover/internal/fleetca"
)

// fleet is a fleet's control hosts over one store.
type fleet struct {
	t  *testing.T
	ca *fleetca.CA
	m  *memory
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	ca, err := fleetca.Ensure(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{t: t, ca: ca, m: newMemory()}
}

// tls issues a host's certificates.
func (f *fleet) tls(id drover.HostID, control bool) string {
	f.t.Helper()
	dir := filepath.Join(f.t.TempDir(), "tls")
	err := fleetca.IssueHost(f.ca, dir, id, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil)
	if err == nil && control {
		err = fleetca.IssueControl(f.ca, dir, id)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return dir
}

// store starts a control host, or starts it again in its directory.
func (f *fleet) store(id drover.HostID, dir string) *Store {
	return New(Config{Records: f.m, Host: id, TLSDir: dir})
}

func (f *fleet) key(s *Store, id drover.KeyID) []byte {
	f.t.Helper()
	key, err := s.Key(f.t.Context(), id)
	if err != nil {
		f.t.Fatalf("key %s: %v", id, err)
	}
	return key
}

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code drover.Code) {
	t.Helper()
	if !drover.Is(err, code) {
		t.Fatalf("got %v, want code %s", err, code)
	}
}

func keyID(n int) drover.KeyID { return drover.KeyID(fmt.Sprintf("key_%016x", n)) }

func TestKeysAreMadeOnceAndStay(t *testing.T) {
	f := newFleet(t)
	dir := f.tls("c1", true)
	s := f.store("c1", dir)
	_, err := s.Key(t.Context(), keyID(1))
	wantCode(t, err, drover.NotFound)
	noErr(t, s.CreateKey(t.Context(), keyID(1)))
	noErr(t, s.CreateKey(t.Context(), keyID(2)))
	one := f.key(s, keyID(1))
	noErr(t, s.CreateKey(t.Context(), keyID(1)))
	again := f.store("c1", dir)
	if !bytes.Equal(f.key(again, keyID(1)), one) || bytes.Equal(f.key(again, keyID(2)), one) || len(one) != drover.CipherKeySize {
		t.Error("a key is not what it was, or not its own")
	}
	wantCode(t, s.CreateKey(t.Context(), "fleet"), drover.Invalid)
	for key, r := range f.m.records {
		if bytes.Contains(r.data, one[:16]) {
			t.Errorf("the record %s shows a key", key)
		}
	}
}

// A record that is moved to another key's name does not open.
func TestAKeyOpensUnderItsOwnNameOnly(t *testing.T) {
	f := newFleet(t)
	s := f.store("c1", f.tls("c1", true))
	noErr(t, s.CreateKey(t.Context(), keyID(1)))
	f.m.records[string(keyID(2))] = f.m.records[string(keyID(1))]
	_, err := s.Key(t.Context(), keyID(2))
	wantCode(t, err, drover.Internal)
}

func TestAControlHostThatJoinsGetsTheFleetKey(t *testing.T) {
	f := newFleet(t)
	c1, c2 := f.store("c1", f.tls("c1", true)), f.store("c2", f.tls("c2", true))
	noErr(t, c1.CreateKey(t.Context(), keyID(1)))
	noErr(t, c1.Tend(t.Context()))
	_, err := c2.Key(t.Context(), keyID(1))
	wantCode(t, err, drover.Unavailable)
	wantCode(t, c2.Tend(t.Context()), drover.Unavailable) // it can only make itself known
	noErr(t, c1.Tend(t.Context()))
	noErr(t, c2.Tend(t.Context()))
	if !bytes.Equal(f.key(c1, keyID(1)), f.key(c2, keyID(1))) {
		t.Error("two control hosts have two keys")
	}
}

// A control host that lost its key gets the fleet key again, for the new one, from another.
func TestAControlHostWithANewKeyIsLetInAgain(t *testing.T) {
	f := newFleet(t)
	c1, c2 := f.store("c1", f.tls("c1", true)), f.store("c2", f.tls("c2", true))
	noErr(t, c1.CreateKey(t.Context(), keyID(1)))
	wantCode(t, c2.Tend(t.Context()), drover.Unavailable)
	noErr(t, c1.Tend(t.Context()))
	want := f.key(c2, keyID(1))
	c2 = f.store("c2", f.tls("c2", true))
	_, err := c2.Key(t.Context(), keyID(1))
	wantCode(t, err, drover.Unavailable)
	wantCode(t, c2.Tend(t.Context()), drover.Unavailable)
	noErr(t, c1.Tend(t.Context()))
	if !bytes.Equal(f.key(c2, keyID(1)), want) {
		t.Error("another key")
	}
}

// Who writes into the store that it is a control host gets nothing without the CA's word.
func TestAWorkerGetsNoFleetKey(t *testing.T) {
	f := newFleet(t)
	c1, dir := f.store("c1", f.tls("c1", true)), f.tls("h1", false)
	noErr(t, c1.CreateKey(t.Context(), keyID(1)))
	der, err := fleetca.HostCertificate(dir)
	noErr(t, err)
	for _, host := range []string{"h1", "c9"} {
		_, err = f.m.Create(t.Context(), controlPrefix+host, Record{Control: &Control{Certificate: der}})
		noErr(t, err)
	}
	noErr(t, c1.Tend(t.Context()))
	noErr(t, c1.Rotate(t.Context()))
	ring, err := c1.Keyring(t.Context())
	noErr(t, err)
	if !slices.Equal(ring.Hosts, []drover.HostID{"c1"}) {
		t.Errorf("the fleet key is sealed for %v", ring.Hosts)
	}
	_, err = f.store("h1", dir).Key(t.Context(), keyID(1))
	wantCode(t, err, drover.Precondition)
}

// A lost fleet key is told of, and not covered up by a new one.
func TestALostFleetKeyIsNotReplaced(t *testing.T) {
	f := newFleet(t)
	s := f.store("c1", f.tls("c1", true))
	noErr(t, s.CreateKey(t.Context(), keyID(1)))
	delete(f.m.records, fleetKey)
	wantCode(t, s.CreateKey(t.Context(), keyID(2)), drover.Precondition)
	other := f.store("c1", f.tls("c1", true)) // its TLS directory was lost, and made anew
	f2 := newFleet(t)
	f2.ca, f2.m = f.ca, newMemory()
	noErr(t, f2.store("c1", f2.tls("c1", true)).CreateKey(t.Context(), keyID(1)))
	f.m.records = f2.m.records
	_, err := other.Key(t.Context(), keyID(1))
	wantCode(t, err, drover.Unavailable)
}

// rotated checks that a rotation has ended and that every key is what it was.
func (f *fleet) rotated(s *Store, want map[drover.KeyID][]byte, generation int) {
	f.t.Helper()
	ring, err := s.Keyring(f.t.Context())
	noErr(f.t, err)
	if ring.Rotating || ring.Generation != generation || len(ring.Keys) != len(want) {
		f.t.Fatalf("keyring: %+v, want generation %d of %d keys", ring, generation, len(want))
	}
	for _, k := range ring.Keys {
		if k.Generation != generation {
			f.t.Errorf("key %s is of generation %d", k.ID, k.Generation)
		}
		if !bytes.Equal(f.key(s, k.ID), want[k.ID]) {
			f.t.Errorf("key %s is another one", k.ID)
		}
	}
}

// Cut at every operation, before and after its effect, a rotation is finished by the next process, with every key as it was.
func TestARotationMayBeCutAnywhere(t *testing.T) {
	f := newFleet(t)
	dir := f.tls("c1", true)
	want := map[drover.KeyID][]byte{}
	s := f.store("c1", dir)
	for i := range 3 {
		noErr(t, s.CreateKey(t.Context(), keyID(i)))
		want[keyID(i)] = f.key(s, keyID(i))
	}
	generation := 1
	for _, after := range []bool{false, true} {
		for k := 0; ; k++ {
			f.m.left, f.m.after = k, after
			err := f.store("c1", dir).Rotate(t.Context())
			cut := f.m.out
			f.m.powerOn()
			if !cut {
				noErr(t, err)
				generation++
				f.rotated(f.store("c1", dir), want, generation)
				break
			}
			wantCode(t, err, drover.Unavailable)
			s := f.store("c1", dir)
			ring, err := s.Keyring(t.Context())
			noErr(t, err)
			generation = ring.Generation
			for id, key := range want {
				if !bytes.Equal(f.key(s, id), key) {
					t.Fatalf("cut %d: key %s is another one", k, id)
				}
			}
			noErr(t, s.Tend(t.Context()))
			f.rotated(s, want, generation)
		}
	}
}

// A whole rotation between any two operations of those that make, claim, delete and read keys takes no key away.
func TestARotationMayComeBetween(t *testing.T) {
	for k := 1; ; k++ {
		f := newFleet(t)
		dir := f.tls("c1", true)
		s, other := f.store("c1", dir), f.store("c1", dir)
		noErr(t, s.CreateKey(t.Context(), keyID(1)))
		want := map[drover.KeyID][]byte{keyID(1): f.key(s, keyID(1))}
		f.m.ops, f.m.at = 0, k
		f.m.before = func() { noErr(t, other.Rotate(t.Context())) }
		if got := f.key(s, keyID(1)); !bytes.Equal(got, want[keyID(1)]) {
			t.Fatalf("operation %d: another key", k)
		}
		noErr(t, s.CreateKey(t.Context(), keyID(2)))
		want[keyID(2)] = f.key(s, keyID(2))
		noErr(t, s.DeleteKey(t.Context(), keyID(1), func(context.Context) (bool, error) { return true, nil }))
		noErr(t, s.ClaimKey(t.Context(), keyID(1)))
		if f.m.before != nil {
			if k < 10 {
				t.Fatalf("only %d operations", k)
			}
			return
		}
		f.rotated(f.store("c1", dir), want, 2)
	}
}

// A key that is made while the process is cut is there whole, or of no use to anybody, and can be made again.
func TestMakingAKeyMayBeCutAnywhere(t *testing.T) {
	for _, after := range []bool{false, true} {
		for k := 0; ; k++ {
			f := newFleet(t)
			dir := f.tls("c1", true)
			f.m.left, f.m.after = k, after
			err := f.store("c1", dir).CreateKey(t.Context(), keyID(1))
			cut := f.m.out
			f.m.powerOn()
			s := f.store("c1", dir)
			noErr(t, s.CreateKey(t.Context(), keyID(1)))
			f.key(s, keyID(1))
			if !cut {
				noErr(t, err)
				break
			}
		}
	}
}

// Whatever a record needs is not deleted, though the record is written at any moment of the deletion.
func TestAKeyThatIsTakenUpIsNotDeleted(t *testing.T) {
	for k := 1; ; k++ {
		f := newFleet(t)
		dir := f.tls("c1", true)
		s, other := f.store("c1", dir), f.store("c1", dir)
		noErr(t, s.CreateKey(t.Context(), keyID(1)))
		used, claimed := false, error(nil)
		f.m.ops, f.m.at = 0, k
		f.m.before = func() { // a fork's record, and then its claim
			used = true
			claimed = other.ClaimKey(t.Context(), keyID(1))
		}
		noErr(t, s.DeleteKey(t.Context(), keyID(1), func(context.Context) (bool, error) { return used, nil }))
		if f.m.before != nil {
			break
		}
		_, err := s.Key(t.Context(), keyID(1))
		if claimed == nil && err != nil {
			t.Fatalf("operation %d: the key is gone though it was claimed: %v", k, err)
		}
	}
	f := newFleet(t)
	s := f.store("c1", f.tls("c1", true))
	noErr(t, s.CreateKey(t.Context(), keyID(1)))
	no := func(context.Context) (bool, error) { return false, nil }
	noErr(t, s.DeleteKey(t.Context(), keyID(1), no))
	noErr(t, s.DeleteKey(t.Context(), keyID(1), no))
	_, err := s.Key(t.Context(), keyID(1))
	wantCode(t, err, drover.NotFound)
	wantCode(t, s.ClaimKey(t.Context(), keyID(1)), drover.NotFound)
}
