package volume

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// powerDisk is a file system whose power can be cut: what programs had written and the kernel had not is lost, and its journal is
// replayed, as after a real cut.
type powerDisk struct {
	t     testing.TB
	image string
	dir   string
}

// newPowerDisk makes one. It needs the right to mount, a loop device and mkfs.ext4, and says so when it skips.
func newPowerDisk(t testing.TB) *powerDisk {
	t.Helper()
	d := &powerDisk{t: t, dir: shortDir(t), image: filepath.Join(t.TempDir(), "image")}
	f := must[*os.File](t)(os.Create(d.image))
	noErr(t, errors.Join(f.Truncate(96*mib), f.Close()))
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", d.image).CombinedOutput(); err != nil {
		t.Skipf("cutting the power of a disk needs mkfs.ext4: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop,noatime", d.image, d.dir).CombinedOutput(); err != nil {
		t.Skipf("cutting the power of a disk needs the right to mount a loop device: %v: %s", err, out)
	}
	t.Cleanup(func() { noErr(t, syscall.Unmount(d.dir, 0)) })
	return d
}

// cut leaves what the disk has at this moment. Nobody may use the file system meanwhile.
func (d *powerDisk) cut() {
	d.t.Helper()
	after := d.image + "+"
	// The image has what the kernel has written. What it would still write goes to the old one, which is thrown away.
	for _, args := range [][]string{
		{"cp", "--sparse=always", d.image, after},
		{"umount", d.dir},
		{"rm", d.image},
		{"mount", "-o", "loop,noatime", after, d.dir},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			d.t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	d.image = after
}
