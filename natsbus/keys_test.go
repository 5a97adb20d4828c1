package natsbus

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"drover"
	"drover/internal/fleetca"
)

// fleetHost issues a host's certificates.
func fleetHost(t *testing.T, ca *fleetca.CA, id drover.HostID, control bool) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tls")
	err := fleetca.IssueHost(ca, dir, id, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil)
	if err == nil && control {
		err = fleetca.IssueControl(ca, dir, id)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// serveKeys hands out a key from a control host's directory until the test ends.
func serveKeys(t *testing.T, conn *Conn, handler func(ctx context.Context, req drover.KeyRequest) (drover.SealedKey, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ServeKeys(ctx, conn, handler) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAKeyReachesItsHostAndNobodyElse(t *testing.T) {
	ca, err := fleetca.Ensure(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h1, h2, c1, c2 := fleetHost(t, ca, "h1", false), fleetHost(t, ca, "h2", false), fleetHost(t, ca, "c1", true), fleetHost(t, ca, "c2", true)
	server := startServer(t, t.TempDir(), 0)
	conn := connect(t, server.ClientURL())
	eventually(t, "connected", conn.Up)
	keys := NewHostKeys(conn, "h1", h1)
	_, err = keys.Key(t.Context(), "key_0000000000000001")
	wantCode(t, err, drover.Unavailable)

	secret := bytes.Repeat([]byte("0123456789abcdef"), 4)
	var answers atomic.Int64
	for _, dir := range []string{c1, c2} {
		serveKeys(t, connect(t, server.ClientURL()), func(_ context.Context, req drover.KeyRequest) (drover.SealedKey, error) {
			answers.Add(1)
			return SealKey(dir, req, secret)
		})
	}
	wire := connect(t, server.ClientURL())
	eventually(t, "connected", wire.Up)
	heard := make(chan *nats.Msg, 1000)
	sub, err := wire.nc.ChanSubscribe(">", heard)
	if err != nil {
		t.Fatal(err)
	}
	defer wire.drop(sub)
	eventually(t, "a key arrives", func() bool {
		got, err := keys.Key(t.Context(), "key_0000000000000001")
		return err == nil && bytes.Equal(got, secret)
	})
	before := answers.Load()
	if got, err := keys.Key(t.Context(), "key_0000000000000001"); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("%q, %v", got, err)
	}
	if n := answers.Load() - before; n != 1 {
		t.Errorf("%d control hosts answered", n)
	}
	// h2 asks in h1's name: with its own certificate it is refused, with that of h1 it gets what it cannot open.
	_, err = NewHostKeys(conn, "h1", h2).Key(t.Context(), "key_0000000000000001")
	wantCode(t, err, drover.Denied)
	for {
		select {
		case m := <-heard:
			if bytes.Contains(m.Data, secret[:16]) || bytes.Contains(m.Data, []byte(base64.StdEncoding.EncodeToString(secret))) {
				t.Fatal("the bus carries the key")
			}
			continue
		default:
		}
		break
	}
}

// A key that does not come from a control host is not used.
func TestOnlyAControlHostHandsOutKeys(t *testing.T) {
	ca, err := fleetca.Ensure(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h1, sly, c1 := fleetHost(t, ca, "h1", false), fleetHost(t, ca, "sly", false), fleetHost(t, ca, "c1", true)
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	eventually(t, "connected", conn.Up)
	var honest atomic.Bool
	serveKeys(t, conn, func(_ context.Context, req drover.KeyRequest) (drover.SealedKey, error) {
		key, err := SealKey(c1, req, make([]byte, 64))
		if err == nil && !honest.Load() {
			other := req
			other.Key = "key_0000000000000002"
			if key, err = SealKey(c1, other, make([]byte, 64)); err == nil && req.Key == "key_0000000000000003" {
				key.Certificate, err = fleetca.HostCertificate(sly)
			}
		}
		return key, err
	})
	keys := NewHostKeys(conn, "h1", h1)
	for _, id := range []drover.KeyID{"key_0000000000000001", "key_0000000000000003"} {
		eventually(t, "an answer", func() bool {
			_, err := keys.Key(t.Context(), id)
			if err == nil {
				t.Fatal("it was taken")
			}
			return drover.Is(err, drover.Internal)
		})
	}
	honest.Store(true)
	if _, err := keys.Key(t.Context(), "key_0000000000000001"); err != nil {
		t.Error(err)
	}
}
