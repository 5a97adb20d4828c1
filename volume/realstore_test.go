package volume

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover"
	"drover/internal/testkit/s3server"
	"drover/manifest"
	"drover/natsbus"
	"drover/s3store"
)

// throughStore takes a volume through a store and back, twice, and checks what the second snapshot cost.
func throughStore(t *testing.T, objects drover.ObjectStore) {
	h := prepareHost(t, newCA(t), "h1")
	h.cfg.Objects = objects
	h.start()
	t.Cleanup(h.halt)
	v := newVolumeUnder(t, h, "vol_a", 9*mib-blockSize)
	v.write(1, 0, 6*mib+1000)
	v.write(2, 8*mib, mib-blockSize)
	v.split("vol_a.s1")
	first := h.uploadDone("vol_a.s1", "vs_1")
	v.write(3, 2*mib+7, 20)
	v.discard(4*mib, mib)
	v.split("vol_a.s2")
	second := h.uploadDone("vol_a.s2", "vs_2")
	if first.Upload.Stored < 7*drover.MiB || second.Upload.Stored > 2*drover.MiB {
		t.Errorf("%d bytes were stored of the first, %d of the second", first.Upload.Stored, second.Upload.Stored)
	}
	h.restore("vol_r", sourceOf(second), 12*drover.MiB)
	noErr(t, h.CheckParent(t.Context(), "vol_r"))
	noErr(t, h.Hydrate(t.Context(), "vol_r", 0))
	h.hydrated("vol_r")
	holds(t, h.dial("vol_r"), append(bytes.Clone(v.model), make([]byte, 3*mib+blockSize)...))
}

func TestSnapshotsOnTheBus(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	server := must[*natsbus.Server](t)(natsbus.StartServer(natsbus.ServerConfig{Name: "c1", Host: "127.0.0.1", StoreDir: t.TempDir(), Log: log}))
	t.Cleanup(server.Shutdown)
	conn := must[*natsbus.Conn](t)(natsbus.Connect(t.Context(), natsbus.Config{URLs: []string{server.ClientURL()}, Name: "h1", Log: log}))
	t.Cleanup(conn.Close)
	throughStore(t, natsbus.NewObjects(conn, natsbus.StreamSnapshots, natsbus.ObjectOptions{Replicas: 1}))
}

func TestSnapshotsOnS3(t *testing.T) {
	if path, err := s3server.Find(); err != nil {
		t.Skipf("there is no S3 server at %s: script/bootstrap installs it", path)
	}
	server := must[*s3server.Server](t)(s3server.New(t.TempDir(), "", ""))
	noErr(t, server.Start(t.Context()))
	t.Cleanup(func() { noErr(t, server.Stop()) })
	throughStore(t, must[*s3store.Store](t)(s3store.New(s3store.Config{Endpoint: server.Endpoint, Bucket: s3server.Bucket,
		CredentialsFile: server.CredentialsFile, PathStyle: true})))
}

// Of an encrypted volume the store has only what the disk has, and a restore needs the same key.
func TestSnapshotsOfAnEncryptedVolume(t *testing.T) {
	h, objects := storeHost(t)
	h.cipher = drover.NewCipher()
	v := newVolumeUnder(t, h, "vol_a", 4*mib)
	secret := []byte("what nobody else should know, ")
	copy(v.model[mib:], bytes.Repeat(secret, 1000))
	noErr(t, v.conn.WriteAt(t.Context(), v.model[mib:mib+30000], mib, true))
	v.split("vol_a.s")
	s := h.uploadDone("vol_a.s", "vs_1")
	for _, name := range objects.Names() {
		if b := must[[]byte](t)(objects.Get(t.Context(), name)); bytes.Contains(b, secret) {
			t.Errorf("%s holds what the guest wrote", name)
		}
	}
	m, _, err := storeOf(t, objects, "vol_a").Manifest(t.Context(), "vs_1", manifest.Hash{})
	noErr(t, err)
	if !m.Cipher.Equal(h.cipher) || m.Chunks != 1 {
		t.Errorf("the manifest is %+v", m)
	}
	h.restore("vol_r", sourceOf(s), 5*drover.MiB)
	c := h.open("vol_r", 1)
	holds(t, c, append(bytes.Clone(v.model), make([]byte, mib)...))
	noErr(t, h.Hydrate(t.Context(), "vol_r", 0))
	h.hydrated("vol_r")
	holds(t, c, append(bytes.Clone(v.model), make([]byte, mib)...))

	h.cipher = nil
	h.restore("vol_q", sourceOf(s), 4*drover.MiB)
	err = h.CheckParent(t.Context(), "vol_q")
	if wantCode(t, err, drover.Precondition); !strings.Contains(err.Error(), "encrypted") {
		t.Error(err)
	}
}

// A flipped bit on the host's disk does not become a snapshot.
func TestDamageOfTheDiskIsNotUploaded(t *testing.T) {
	h, objects := storeHost(t)
	v := newVolumeUnder(t, h, "vol_a", 2*mib)
	v.write(1, 0, 2*mib)
	v.split("vol_a.s")
	flipOnDisk(t, h, "vol_a.s", mib+5000)
	must[drover.LayerStatus](t)(h.Upload(t.Context(), "vol_a.s", drover.SnapshotSource{Snapshot: "vs_1", Volume: "vol_a"}))
	eventually(t, func() error {
		u := must[drover.LayerStatus](t)(h.Layer(t.Context(), "vol_a.s")).Upload
		if !strings.Contains(u.Waiting, "checksum") {
			return drover.Errorf(drover.Internal, "the upload is %+v", u)
		}
		return nil
	})
	for _, name := range objects.Names() {
		if strings.HasPrefix(name, manifest.Prefix("vol_a", manifest.KindManifest)) {
			t.Error("there is a manifest")
		}
	}
}

// flipOnDisk changes a bit of a layer's data file.
func flipOnDisk(t *testing.T, h *testHost, id drover.LayerID, off int64) {
	t.Helper()
	dir := filepath.Join(h.cfg.Dir, "layers", string(id))
	m := must[*meta](t)(readMeta(filepath.Join(dir, metaFile), id))
	f := must[*os.File](t)(os.OpenFile(filepath.Join(dir, fileName(dataFile, m.Files)), os.O_RDWR, 0))
	defer f.Close()
	b := make([]byte, 1)
	_, err := f.ReadAt(b, off)
	noErr(t, err)
	b[0] ^= 8
	_, err = f.WriteAt(b, off)
	noErr(t, err)
}
