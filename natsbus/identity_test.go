package natsbus

import (
	"context"
	"strings"
	"sync"
	"testing"

	"drover"
)

func TestNameNumberAndKeyOfAHostAreItsAlone(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	open[drover.HostIdentity](t, conn, BucketIdentities)
	open[uint64](t, conn, BucketCounters)
	peers := open[drover.WireGuardPeer](t, conn, BucketWireGuard)
	serveIdentities(t, conn)
	ctx := t.Context()
	want := drover.HostIdentity{Host: "h1", Instance: "i1", PublicKey: "k1=", Address: "10.0.0.1"}
	first, err := NewHostBus(conn, "h1").ClaimIdentity(ctx, want)
	if err != nil || first.Number == 0 || first.PrivateAddress == "" || first.Host != "h1" {
		t.Fatalf("joined as %+v, %v", first, err)
	}
	again, err := NewHostBus(conn, "h1").ClaimIdentity(ctx, want)
	if err != nil || again != first {
		t.Errorf("the second time it is %+v, %v, not %+v", again, err, first)
	}
	moved := want
	moved.Address, moved.PublicKey = "10.0.0.7", "k7="
	if got, err := NewHostBus(conn, "h1").ClaimIdentity(ctx, moved); err != nil || got.Number != first.Number || got.PublicKey != "k7=" {
		t.Errorf("with a new key and address it is %+v, %v", got, err)
	}
	// It gets another key: first that is its own beside the present one, then it is the only one.
	moved.NextKey, moved.Rotation = "k9=", &drover.KeyRotation{ID: "r1", By: "ann"}
	if got, err := NewHostBus(conn, "h1").ClaimIdentity(ctx, moved); err != nil || got.PublicKey != "k7=" || got.NextKey != "k9=" || got.Number != first.Number || !got.Rotation.Running() {
		t.Errorf("with a next key it is %+v, %v", got, err)
	}
	_, err = NewHostBus(conn, "h2").ClaimIdentity(ctx, drover.HostIdentity{Host: "h2", Instance: "i2", PublicKey: "k9=", Address: "10.0.0.2"})
	wantCode(t, err, drover.Conflict)
	moved.PublicKey, moved.NextKey, moved.KeyNumber = "k9=", "", 1
	if got, err := NewHostBus(conn, "h1").ClaimIdentity(ctx, moved); err != nil || got.PublicKey != "k9=" || got.NextKey != "" || got.KeyNumber != 1 {
		t.Errorf("after the rotation it is %+v, %v", got, err)
	}
	_, err = NewHostBus(conn, "h2").ClaimIdentity(ctx, drover.HostIdentity{Host: "h2", Instance: "i2", PublicKey: "k7=", Address: "10.0.0.2"})
	wantCode(t, err, drover.Conflict) // an old key is given to nobody
	// Another host of the name.
	second := drover.HostIdentity{Host: "h1", Instance: "i2", PublicKey: "k2=", Address: "10.0.0.2"}
	_, err = NewHostBus(conn, "h1").ClaimIdentity(ctx, second)
	wantCode(t, err, drover.Conflict)
	if text := err.Error(); !strings.Contains(text, `"h1"`) || !strings.Contains(text, "10.0.0.7") {
		t.Errorf("the refusal does not say whose name it is: %s", text)
	}
	// Another host with the key.
	second.Host, second.PublicKey = "h2", "k1="
	_, err = NewHostBus(conn, "h2").ClaimIdentity(ctx, second)
	wantCode(t, err, drover.Conflict)
	if text := err.Error(); !strings.Contains(text, `"h1"`) {
		t.Errorf("the refusal does not say whose key it is: %s", text)
	}
	second.PublicKey = "k2="
	if got, err := NewHostBus(conn, "h2").ClaimIdentity(ctx, second); err != nil || got.Number == first.Number || got.PrivateAddress == first.PrivateAddress {
		t.Errorf("the second host is %+v, %v", got, err)
	}
	// A host that comes with a person's key, or is about to have it, until the person has it no more.
	ann := drover.WireGuardPeer{Name: "ann", Organization: "acme", PublicKey: "k5="}
	for _, key := range []string{KeyOwner(ann.PublicKey), PeerKey(ann.Organization, ann.Name)} {
		if _, err := peers.Create(ctx, key, ann); err != nil {
			t.Fatal(err)
		}
	}
	third := drover.HostIdentity{Host: "h3", Instance: "i3", PublicKey: ann.PublicKey, Address: "10.0.0.3"}
	rotates := second
	rotates.NextKey = ann.PublicKey
	for _, want := range []drover.HostIdentity{third, rotates, third} {
		_, err = NewHostBus(conn, want.Host).ClaimIdentity(ctx, want)
		wantCode(t, err, drover.Conflict)
		if text := err.Error(); !strings.Contains(text, `"ann"`) || !strings.Contains(text, `"acme"`) {
			t.Errorf("the refusal does not say whose key it is: %s", text)
		}
	}
	if _, err := peers.Delete(ctx, PeerKey(ann.Organization, ann.Name), 0); err != nil {
		t.Fatal(err)
	}
	if got, err := NewHostBus(conn, "h3").ClaimIdentity(ctx, third); err != nil || got.PublicKey != ann.PublicKey {
		t.Errorf("with a key that is nobody's any more it is %+v, %v", got, err)
	}
}

func TestOfTwoHostsThatJoinWithOneNameAtOnceOneDoes(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	open[drover.HostIdentity](t, conn, BucketIdentities)
	open[uint64](t, conn, BucketCounters)
	open[drover.WireGuardPeer](t, conn, BucketWireGuard)
	serveIdentities(t, conn)
	var mu sync.Mutex
	joined, refused := 0, 0
	var group sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		group.Go(func() {
			_, err := NewHostBus(conn, "h1").ClaimIdentity(t.Context(), drover.HostIdentity{Host: "h1", Instance: name, PublicKey: "key " + name})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				joined++
			case drover.Is(err, drover.Conflict):
				refused++
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if joined != 1 || refused != 2 {
		t.Errorf("%d joined, %d were refused", joined, refused)
	}
}

// serveIdentities lets hosts join, until the test ends.
func serveIdentities(t *testing.T, conn *Conn) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- ServeIdentities(ctx, conn) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for {
		// A request in another's name is refused as soon as somebody listens.
		_, err := NewHostBus(conn, "h0").ClaimIdentity(t.Context(), drover.HostIdentity{Host: "h1"})
		if drover.Is(err, drover.Denied) {
			return
		}
		if !drover.Is(err, drover.Unavailable) {
			t.Fatalf("in another host's name: %v", err)
		}
	}
}
