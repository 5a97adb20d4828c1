package natsbus

import (
	"context"
	"strings"
	"testing"
	"time"

	"drover"
)

// A data directory is copied with everything in it: of the two hosts the one that runs stays who it is, and the other is refused by name until that one is gone.
func TestACopyOfAHostThatRunsIsRefused(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	open[drover.HostIdentity](t, conn, BucketIdentities)
	open[uint64](t, conn, BucketCounters)
	open[drover.WireGuardPeer](t, conn, BucketWireGuard)
	serveIdentities(t, conn)
	bus := NewHostBus(conn, "h1")
	first := drover.HostIdentity{Host: "h1", Instance: "i1", PublicKey: "k1=", Address: "10.0.0.1", Boot: "b1"}
	joined, err := bus.ClaimIdentity(t.Context(), first)
	if err != nil || joined.Boot != "b1" {
		t.Fatalf("joined as %+v, %v", joined, err)
	}
	running, halt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- bus.ServeBoot(running, "b1") }()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		if boot, err := (registrar{conn: conn}).bootOf(t.Context(), "h1"); err == nil && boot == "b1" {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the first host answers %q, %v", boot, err)
		}
	}
	elsewhere, here := first, first
	elsewhere.Boot, elsewhere.Address = "b2", "10.0.0.9"
	here.Boot = "b2"
	for _, copied := range []drover.HostIdentity{elsewhere, here} {
		_, err = bus.ClaimIdentity(t.Context(), copied)
		wantCode(t, err, drover.Conflict)
		if text := err.Error(); !strings.Contains(text, `"h1"`) || !strings.Contains(text, "10.0.0.1") {
			t.Errorf("the refusal does not say whose name it is: %s", text)
		}
	}
	if again, err := bus.ClaimIdentity(t.Context(), first); err != nil || again != joined {
		t.Errorf("the first host is %+v then, %v", again, err)
	}
	// It boots again.
	halt()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got, err := bus.ClaimIdentity(t.Context(), here); err != nil || got.Boot != "b2" || got.Number != joined.Number {
		t.Errorf("after a boot it is %+v, %v", got, err)
	}
	if got, err := bus.ClaimIdentity(t.Context(), elsewhere); err != nil || got.Address != "10.0.0.9" || got.Number != joined.Number {
		t.Errorf("at another address it is %+v, %v", got, err)
	}
}
