package qemu

import (
	"os"
	"path/filepath"
	"testing"

	"drover"
)

// TestADiskGrowsUnderARunningGuest makes a disk larger twice, by the agent that started the VM and by one that found it.
func TestADiskGrowsUnderARunningGuest(t *testing.T) {
	dir := t.TempDir()
	m := newMachine(t, filepath.Join(dir, "m"), "00000000000a1e", `
echo size $(blockdev --getsize64 /dev/vdc)
last=67108864
while true; do
	now=$(blockdev --getsize64 /dev/vdc)
	[ "$now" = "$last" ] || { last=$now; echo size $now; dd if=/dev/zero of=/dev/vdc bs=512 seek=$((now / 512 - 1)) count=1 conv=fsync 2>/dev/null && echo written $now; }
	sleep 0.1
done
`)
	d := newDriver(t, filepath.Join(dir, "run"))
	vm, err := d.Start(t.Context(), m.spec)
	if err != nil {
		t.Fatal(err)
	}
	m.waitConsole(t, "size 67108864")
	if err := vm.Resize(t.Context(), 1, m.volume.at, 64<<20); err != nil {
		t.Fatalf("the size that it has: %v", err)
	}
	if err := vm.Resize(t.Context(), 1, m.volume.at, 32<<20); !drover.Is(err, drover.Invalid) {
		t.Errorf("smaller: %v", err)
	}
	if err := vm.Resize(t.Context(), 2, m.volume.at, 128<<20); !drover.Is(err, drover.Precondition) {
		t.Errorf("a disk that is not there: %v", err)
	}
	// qemu-nbd keeps the size that a file had at its start, so a larger export is a server of its own.
	grow := func(name string, size int64) *export {
		t.Helper()
		if err := os.Truncate(m.volume.file, size); err != nil {
			t.Fatal(err)
		}
		return serve(t, m.dir, name, m.volume.file)
	}
	larger := grow("v2", 128<<20)
	for range 2 {
		if err := vm.Resize(t.Context(), 1, larger.at, 128<<20); err != nil {
			t.Fatal(err)
		}
	}
	m.waitConsole(t, "written 134217728")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = newDriver(t, filepath.Join(dir, "run"))
	if vm, err = d.Find(t.Context(), m.spec.Machine); err != nil {
		t.Fatal(err)
	}
	larger = grow("v3", 256<<20)
	eventually(t, "the VM that was found grows its disk", func() bool {
		err := vm.Resize(t.Context(), 1, larger.at, 256<<20)
		if err != nil && !drover.Is(err, drover.Unavailable) {
			t.Fatal(err)
		}
		return err == nil
	})
	m.waitConsole(t, "written 268435456")
}
