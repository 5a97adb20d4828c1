package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover"
	"drover/internal/durable"
	"drover/internal/fault"
	"drover/manifest"
)

// envObjects is a directory that a daemon in a process of its own uses as its object store.
const envObjects = "TEST_STORAGE_OBJECTS"

// dirStore is an object store in a directory, which two processes can use. It notes each object that is stored twice.
type dirStore struct{ dir string }

var _ drover.ObjectStore = dirStore{}

func (s dirStore) path(name string) string { return filepath.Join(s.dir, "objects", name) }

func (s dirStore) Put(_ context.Context, name string, data []byte) error {
	if _, err := os.Stat(s.path(name)); err == nil {
		if err := durable.WriteFile(filepath.Join(s.dir, "twice"), []byte(name), 0o600); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(s.path(name), data, 0o600)
}

func (s dirStore) Get(_ context.Context, name string) ([]byte, error) {
	b, err := os.ReadFile(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, drover.Errorf(drover.NotFound, "no object %s", name)
	}
	return b, err
}

func (s dirStore) Has(_ context.Context, name string) (bool, error) {
	_, err := os.Stat(s.path(name))
	return err == nil, nil
}

func (s dirStore) List(_ context.Context, prefix string, fn func(string, drover.Bytes) error) error {
	err := filepath.WalkDir(s.path(""), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, s.path("")+"/")
		info, err := d.Info()
		if err != nil || !strings.HasPrefix(name, prefix) || strings.HasPrefix(filepath.Base(name), ".") {
			return err
		}
		return fn(name, drover.Bytes(info.Size()))
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (s dirStore) Delete(_ context.Context, name string) error { return durable.Remove(s.path(name)) }

// Wherever the daemon is killed, the upload goes on by itself, sends nothing twice, and what it ends with is whole.
func TestUploadGoesOnAfterAKillAtAnyPoint(t *testing.T) {
	for _, point := range FaultPoints() {
		if !strings.HasPrefix(point, "volume.upload.") {
			continue
		}
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			p := newProcessHost(t, prepareHost(t, newCA(t), "h1"))
			objects := t.TempDir()
			p.env = []string{envObjects + "=" + objects}
			p.start()
			v := newVolumeUnder(t, p.testHost, "vol_a", 6*mib)
			v.write(1, 0, 5*mib)
			v.split("vol_a.s0")
			p.uploadDone("vol_a.s0", "vs_0")
			v.write(2, mib, 2*mib)
			v.write(3, 4*mib+5, 100)
			v.split("vol_a.s1")
			noErr(t, fault.Arm(p.faults, point, "process"))
			_, err := p.Upload(t.Context(), "vol_a.s1", drover.SnapshotSource{Snapshot: "vs_1", Volume: "vol_a"})
			if err == nil || point != "volume.upload.begun" {
				<-p.gone
			}
			if _, err := os.Stat(filepath.Join(p.faults, point)); err == nil {
				t.Fatal("the point was not reached")
			}
			p.kill()
			p.start()
			s := p.uploaded("vol_a.s1") // nobody asked again
			if b, err := os.ReadFile(filepath.Join(objects, "twice")); err == nil && !strings.Contains(string(b), string(manifest.KindManifest)) {
				t.Errorf("%s was stored twice", b)
			}
			p.restore("vol_r", sourceOf(s), 6*drover.MiB)
			holds(t, p.dial("vol_r"), v.model)
		})
	}
}

// A restore goes on after a kill, with what was fetched not fetched again.
func TestRestoreGoesOnAfterAKill(t *testing.T) {
	for _, point := range []string{"volume.create.filled", "volume.create.installed", "volume.flush.data-synced", "volume.hydrate.complete"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			p := newProcessHost(t, prepareHost(t, newCA(t), "h1"))
			p.env = []string{envObjects + "=" + t.TempDir()}
			p.start()
			v := newVolumeUnder(t, p.testHost, "vol_a", 6*mib)
			v.write(1, 0, 5*mib)
			v.split("vol_a.s")
			src := sourceOf(p.uploadDone("vol_a.s", "vs_1"))
			noErr(t, fault.Arm(p.faults, point, "process"))
			spec := drover.LayerSpec{ID: "vol_r", Disk: "vol_r", Size: 6 * drover.MiB, Snapshot: src}
			for try := 0; ; try++ {
				_, err := p.CreateLayer(t.Context(), spec)
				if err == nil {
					err = p.Hydrate(t.Context(), "vol_r", 0)
				}
				if err == nil {
					break
				}
				if try == 3 {
					t.Fatal(err)
				}
				p.kill()
				p.start()
			}
			if strings.Contains(point, "flush") || strings.Contains(point, "hydrate") {
				<-p.gone
				p.start()
			}
			p.hydrated("vol_r")
			holds(t, p.dial("vol_r"), v.model)
		})
	}
}

func TestUploadRecordIsKeptWhole(t *testing.T) {
	m := &meta{Upload: &uploadRecord{Snapshot: "vs_1", Pages: []manifest.PageRef{{Index: 1, Chunks: 2}}}}
	c := m.clone()
	c.Upload.Pages[0].Chunks, c.Upload.Done = 9, true
	if m.Upload.Pages[0].Chunks != 2 || m.Upload.Done {
		t.Error("a copy of the record shares the upload with the record")
	}
	b := must[[]byte](t)(json.Marshal(m.Upload))
	var back uploadRecord
	noErr(t, json.Unmarshal(b, &back))
	if fmt.Sprint(back) != fmt.Sprint(*m.Upload) {
		t.Errorf("%+v came back as %+v", m.Upload, back)
	}
}
