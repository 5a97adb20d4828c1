package fleet

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"drover"
	"drover/natsbus"
)

// keysOf is how a host asks for keys.
func (w *world) keysOf(host drover.HostID) *natsbus.HostKeys {
	w.t.Helper()
	conn := w.connect(w.t.Context(), string(host)+"-keys")
	w.t.Cleanup(conn.Close)
	return natsbus.NewHostKeys(conn, host, w.tls(host, false))
}

// getsKey waits until a host gets a key.
func (w *world) getsKey(keys *natsbus.HostKeys, id drover.KeyID) (secret []byte) {
	w.t.Helper()
	w.eventually("the host gets key "+string(id), func() (ok bool) {
		var err error
		secret, err = keys.Key(w.t.Context(), id)
		return err == nil
	})
	return secret
}

func wantCode(t *testing.T, err error, code drover.Code) {
	t.Helper()
	if !drover.Is(err, code) {
		t.Fatalf("got %v, want code %s", err, code)
	}
}

// A key is handed to the host that the volume is on, to the target of its migration, and to nobody else; with the volume it goes.
func TestKeysGoWhereVolumesAre(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	vol := w.volume(n, "h1")
	key := vol.Volume.Cipher.Key
	h1, h2, h3 := w.keysOf("h1"), w.keysOf("h2"), w.keysOf("h3")
	secret := w.getsKey(h1, key)
	refused := func(keys *natsbus.HostKeys) {
		t.Helper()
		_, err := keys.Key(t.Context(), key)
		wantCode(t, err, drover.Conflict)
	}
	w.eventually("h2 reaches the bus", func() bool { _, err := h2.Key(t.Context(), key); return drover.Is(err, drover.Conflict) })
	w.eventually("h3 reaches the bus", func() bool { _, err := h3.Key(t.Context(), key); return drover.Is(err, drover.Conflict) })
	v := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}})
	n.kill()
	reached, release := make(chan struct{}), make(chan struct{})
	n = w.control("c1", func(point string) bool {
		if point == "fleet.move.quiesce.before" {
			close(reached)
			<-release
		}
		return false
	})
	m, err := n.MoveMachine(t.Context(), Move{Machine: v.Machine.ID, Target: "h2"})
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	if !bytes.Equal(w.getsKey(h2, key), secret) || !bytes.Equal(w.getsKey(h1, key), secret) {
		t.Error("two hosts have two keys")
	}
	refused(h3)
	close(release)
	w.ended(n, m.ID)
	refused(h1)
	w.getsKey(h2, key)
	if err := n.DestroyMachine(t.Context(), "shop", v.Machine.ID, true); err != nil {
		t.Fatal(err)
	}
	if _, err := n.DestroyVolume(t.Context(), "shop", vol.Volume.ID); err != nil {
		t.Fatal(err)
	}
	w.eventually("the key is destroyed with the volume", func() bool {
		_, err := n.keys.Key(t.Context(), key)
		return drover.Is(err, drover.NotFound)
	})
	w.checkEmpty(n)
}

func TestVolumesAreEncryptedUnlessAskedOtherwise(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	plain, err := n.CreateVolume(t.Context(), CreateVolume{App: "shop", Name: "plain", Size: drover.GiB, Unencrypted: true})
	if err != nil || plain.Volume.Cipher != nil {
		t.Fatalf("%+v, %v", plain, err)
	}
	vol := w.volume(n, "h1")
	if err := vol.Volume.Cipher.Check(); err != nil || vol.Volume.Cipher == nil {
		t.Fatalf("%+v, %v", vol.Volume, err)
	}
	// Nothing of the key is in what the bus keeps.
	secret, err := n.keys.Key(t.Context(), vol.Volume.Cipher.Key)
	if err != nil {
		t.Fatal(err)
	}
	forms := [][]byte{secret[:12], []byte(base64.StdEncoding.EncodeToString(secret[:12])), []byte(hex.EncodeToString(secret[:12]))}
	err = filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if slices.ContainsFunc(forms, func(form []byte) bool { return bytes.Contains(b, form) }) {
			t.Errorf("the key is in %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A control host that joins gets the fleet key from one that has it, and hands out keys when that one is gone.
func TestAControlHostThatJoinsHandsOutKeys(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	vol := w.volume(n, "h1")
	secret := w.getsKey(w.keysOf("h1"), vol.Volume.Cipher.Key)
	other := w.control("c2", nil)
	w.eventually("c2 has the fleet key", func() bool {
		ring, err := n.Keyring(t.Context())
		return err == nil && slices.Equal(ring.Hosts, []drover.HostID{"c1", "c2"})
	})
	n.kill()
	if got := w.getsKey(w.keysOf("h1"), vol.Volume.Cipher.Key); !bytes.Equal(got, secret) {
		t.Error("another key")
	}
	if _, err := other.RotateKeys(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTheFleetKeyRotates(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	vol := w.volume(n, "h1")
	key := vol.Volume.Cipher.Key
	before, err := n.keys.Key(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := n.RotateKeys(t.Context())
	if err != nil || ring.Generation != 2 || ring.Rotating || len(ring.Keys) != 1 || ring.Keys[0].Generation != 2 {
		t.Fatalf("%+v, %v", ring, err)
	}
	if after, err := n.keys.Key(t.Context(), key); err != nil || !bytes.Equal(before, after) {
		t.Errorf("another key: %v", err)
	}
}

// A key whose volume was never made, or whose volume went while the control host died, does not stay.
func TestKeysWithoutAVolumeAreDestroyed(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	vol := w.volume(n, "h1")
	if err := n.keys.CreateKey(t.Context(), drover.NewKeyID()); err != nil {
		t.Fatal(err)
	}
	n.kill()
	n = w.control("c1", killOnce("fleet.key.drop.before"))
	if err := n.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = n.DestroyVolume(t.Context(), "shop", vol.Volume.ID) // it dies
	}()
	<-n.dead
	<-gone
	n.kill()
	w.checkEmpty(w.control("c1", nil))
}

// A snapshot keeps the key of its volume, which what is restored from it has, too; the last of them takes it along.
func TestASnapshotKeepsItsVolumesKey(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	vol := w.volume(n, "h1")
	snapshot := drover.Snapshot{ID: drover.NewSnapshotID(), Volume: vol.Volume.ID, App: "shop", Cipher: vol.Volume.Cipher}
	rev, err := n.state.snapshots.create(t.Context(), string(snapshot.ID), snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.DestroyVolume(t.Context(), "shop", vol.Volume.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := n.keys.Key(t.Context(), snapshot.Cipher.Key); err != nil {
		t.Errorf("the snapshot's key: %v", err)
	}
	if err := n.state.snapshots.remove(t.Context(), string(snapshot.ID), rev); err != nil {
		t.Fatal(err)
	}
	n.dropKey(t.Context(), snapshot.Cipher)
	w.checkEmpty(n)
}

// Without a place for keys no volume is encrypted, and none is made that is not without being asked for.
func TestAFleetWithoutKeysSaysSo(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	f, err := New(Config{Conn: w.connect(t.Context(), "c9"), Host: "c9", Log: w.log})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.newCipher(t.Context(), CreateVolume{Name: "data"})
	wantCode(t, err, drover.Precondition)
	if c, err := f.newCipher(t.Context(), CreateVolume{Name: "data", Unencrypted: true}); c != nil || err != nil {
		t.Errorf("%v, %v", c, err)
	}
}
