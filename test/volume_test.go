package test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover"
	"drover/apiv1"
)

// layersOf lists the layers that a host has of a volume.
func layersOf(t *testing.T, host drover.HostID, volume drover.VolumeID) (layers []drover.LayerStatus) {
	t.Helper()
	for _, l := range ask[[]drover.LayerStatus](t, "host", "layers", string(host)) {
		if l.Disk == volume.Disk() {
			layers = append(layers, l)
		}
	}
	return layers
}

// TestSnapshotRestoreAndForkOfARunningMachine: the machine writes all the time; what was acknowledged before the moment is in the copy,
// which is usable at once on another host, and the machine notices nothing.
func TestSnapshotRestoreAndForkOfARunningMachine(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	w := newWriter(t, app, "h1")
	boot, before := w.Now().Boot, w.Now()
	snapshot := ask[apiv1.Snapshot](t, "volume", "snapshot", "create", string(w.volume))
	if snapshot.Status != drover.SnapshotCreated || snapshot.Size == 0 {
		t.Fatalf("snapshot %+v", snapshot)
	}
	fork := ask[apiv1.Volume](t, "volume", "fork", string(w.volume), "--host", "h2", "--name", "forked")
	w.goesOn(t)
	restored := ask[apiv1.Volume](t, "volume", "create", "restored", "--app", app, "--host", "h3", "--snapshot", string(snapshot.ID))
	for _, copied := range []apiv1.Volume{fork, restored} {
		c := writerOn(t, app, copied.ID)
		c.intact(t)
		if now := c.Now(); now.Acked < before.Acked {
			t.Errorf("volume %s on %s has %d records, %d were acknowledged before", copied.Name, copied.Host, now.Acked, before.Acked)
		}
	}
	w.goesOn(t)
	if now := w.Now().Boot; now != boot {
		t.Error("the machine started again")
	}
	w.intact(t)
	eventually(t, boundMove, "the frozen layers' end", func() bool { return len(layersOf(t, "h1", w.volume)) == 1 })

	// One sends only what is new since the one before it; the volume may go, its snapshots stay.
	second := ask[apiv1.Snapshot](t, "volume", "snapshot", "create", string(w.volume), "--quiesce")
	if third := ask[apiv1.Snapshot](t, "volume", "snapshot", "create", string(w.volume)); third.Stored >= snapshot.Stored {
		t.Errorf("the first snapshot stored %d bytes, one right after another %d", snapshot.Stored, third.Stored)
	}
	run(t, "volume", "snapshot", "delete", string(snapshot.ID), "--yes")
	again := ask[apiv1.Volume](t, "volume", "create", "again", "--app", app, "--host", "h2", "--snapshot", string(second.ID))
	writerOn(t, app, again.ID).intact(t)
}

// TestExtendIsSeenByTheRunningGuest: the block device and the file system on it grow while the machine writes.
func TestExtendIsSeenByTheRunningGuest(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	for _, transport := range []string{"nbd", "vhost-user-blk"} {
		v := ask[apiv1.Volume](t, "volume", "create", "growing", "--app", app, "--host", "h1", "--size", "1GiB")
		m := shell(t, app, "exec sleep 100000", "--host", "h1", "--disk-transport", transport, "--volume", string(v.ID)+":/data")
		started := machine(t, m.ID).StartedAt
		run(t, "volume", "extend", string(v.ID), "--size", "2GiB")
		eventually(t, boundBoot, "the new size in the guest over "+transport, func() bool {
			return inside(t, m.ID, "cat", "/sys/class/block/vdc/size") == "4194304"
		})
		eventually(t, boundBoot, "the new size of the file system over "+transport, func() bool {
			fields := strings.Fields(inside(t, m.ID, "/bin/sh", "-c", "df -m /data | tail -n 1"))
			return len(fields) > 1 && len(fields[1]) == 4 && fields[1] > "1800"
		})
		inside(t, m.ID, "/bin/sh", "-c", "busybox fallocate -l 1200M /data/large && dd if=/dev/zero of=/data/large bs=1M count=8 seek=1150 conv=notrunc && sync && rm /data/large")
		if now := machine(t, m.ID); !now.StartedAt.Equal(started) {
			t.Errorf("the machine started again over %s", transport)
		}
		run(t, "machine", "destroy", string(m.ID), "--force", "--yes")
		if exit, said := refused(t, "volume", "extend", string(v.ID), "--size", "1GiB"); exit != 2 || !strings.Contains(said, "size") {
			t.Errorf("a volume was made smaller: exit code %d, %s", exit, said)
		}
	}
}

func TestADestroyedVolumeIsBroughtBack(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	v := ask[apiv1.Volume](t, "volume", "create", "precious", "--app", app, "--host", "h1", "--size", "1GiB")
	m := shell(t, app, "exec sleep 100000", "--volume", string(v.ID)+":/data")
	inside(t, m.ID, "/bin/sh", "-c", "echo kept > /data/note; sync")
	run(t, "machine", "destroy", string(m.ID), "--force", "--yes")
	run(t, "volume", "destroy", string(v.ID), "--yes")
	if left := ask[[]apiv1.Volume](t, "volume", "list", "--app", app); len(left) != 0 {
		t.Errorf("still listed: %+v", left)
	}
	run(t, "volume", "undelete", string(v.ID))
	m = shell(t, app, "exec sleep 100000", "--volume", string(v.ID)+":/data")
	if note := inside(t, m.ID, "cat", "/data/note"); note != "kept" {
		t.Errorf("the note says %q", note)
	}
}

// TestEncryptedVolumesLeaveNothingReadable looks for what a guest wrote in the files of every host. The volume without encryption
// proves that the search finds it.
func TestEncryptedVolumesLeaveNothingReadable(t *testing.T) {
	app := newApp(t)
	marker := strings.Repeat("drover-"+app+"-", 8)
	for _, c := range []struct {
		name  string
		flags []string
		found bool
	}{{"sealed", nil, false}, {"plain", []string{"--no-encryption"}, true}} {
		v := ask[apiv1.Volume](t, append([]string{"volume", "create", c.name, "--app", app, "--host", "h1", "--size", "1GiB"}, c.flags...)...)
		if v.Encrypted == c.found {
			t.Errorf("volume %s: encrypted is %v", c.name, v.Encrypted)
		}
		m := shell(t, app, "exec sleep 100000", "--volume", string(v.ID)+":/data")
		inside(t, m.ID, "/bin/sh", "-c", "echo '"+marker+c.name+"' > /data/note; sync")
		run(t, "machine", "move", string(m.ID), "--to", "h2")
		if note := inside(t, m.ID, "cat", "/data/note"); note != marker+c.name {
			t.Errorf("after the move the note says %q", note)
		}
		if found := poolHas(t, []byte(marker+c.name)); found != c.found {
			t.Errorf("volume %s: the marker is in the pools' files: %v", c.name, found)
		}
	}
}

// poolHas searches the data of every volume's layer on every host.
func poolHas(t *testing.T, marker []byte) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(fleet.cli.Dir, "hosts", "*", "data", "storage", "layers", "vol_*", "data*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no layers found: %v", err)
	}
	for _, path := range files {
		if fileHas(t, path, marker) {
			return true
		}
	}
	return false
}

// fileHas reads a sparse file by its allocated parts, as tar would.
func fileHas(t *testing.T, path string, marker []byte) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		start, err := f.Seek(off, 3) // SEEK_DATA (lseek(2))
		if err != nil {
			return false // nothing but a hole is left
		}
		n, err := f.ReadAt(buf, start)
		if bytes.Contains(buf[:n], marker) {
			return true
		}
		if off = start + int64(n); err != nil {
			return false
		}
	}
}

// TestAFlippedByteIsFoundAndNamed changes one byte in the file of a volume behind the daemon's back.
func TestAFlippedByteIsFoundAndNamed(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	w := newWriter(t, app, "h1")
	run(t, "machine", "stop", string(w.id))
	run(t, "volume", "verify", string(w.volume))
	files, err := filepath.Glob(filepath.Join(fleet.cli.Dir, "hosts", "h1", "data", "storage", "layers", string(w.volume)+"*", "data*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at, err := f.Seek(64<<20, 3) // SEEK_DATA: some block that holds data
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	flip := func() {
		if _, err := f.ReadAt(b, at+100); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x10
		if _, err := f.WriteAt(b, at+100); err != nil {
			t.Fatal(err)
		}
	}
	flip()
	_, said := refused(t, "volume", "verify", string(w.volume))
	if !strings.Contains(said, string(w.volume)) || !strings.Contains(said, "DAMAGED") {
		t.Errorf("verify said: %s", said)
	}
	flip() // as it was, so that the machine is whole for the rest
	run(t, "volume", "verify", string(w.volume))
}
