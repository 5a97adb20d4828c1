package guest_test

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"drover/guest"
)

func itoa(i int) string { return strconv.Itoa(i) }

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// checkDisk looks at a file system as it was left: clean, and without a mistake.
func checkDisk(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command("/sbin/e2fsck", "-f", "-n", path).CombinedOutput()
	if err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	out, err = exec.Command("/sbin/dumpe2fs", "-h", path).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("Filesystem state:         clean\n")) || bytes.Contains(out, []byte("needs_recovery")) {
		t.Errorf("the file system was not unmounted: %v\n%s", err, out)
	}
}

func TestVolumeIsFormattedOnceKeptAndGrown(t *testing.T) {
	first, second := disk(t, 128<<20), disk(t, 1<<30)
	volumes := []guest.Volume{{Name: "vol_a", Path: "/data/", MkFS: true}, {Name: "vol_b", Path: "/var/own", MkFS: true}}
	write := func(script string) (*vm, []string) {
		t.Helper()
		v := boot(t, guest.Config{Argv: []string{"sh", "-c", script}, Volumes: volumes, User: "ann"},
			vmOptions{volumes: []string{first, second}})
		if ev := v.wait(guest.EventPowerOff); ev.Error != "" {
			t.Errorf("poweroff: %+v", ev)
		}
		v.waitEnd()
		return v, v.lines()
	}
	v, lines := write("echo kept >/var/own/file; sync; stat -c '%u %a' /var/own /data; mount | grep -c '/dev/vd[cd] .*ext4'")
	if !slices.Equal(lines, []string{"stdout: 1000 755", "stdout: 0 755", "stdout: 2"}) {
		t.Errorf("first boot: %q", lines)
	}
	if booted := v.seen[0]; !slices.Equal(booted.Formatted, []string{"vol_a", "vol_b"}) {
		t.Errorf("first boot: %+v", booted)
	}
	checkDisk(t, first)
	checkDisk(t, second)
	if used := allocated(t, second); used > 8<<20 {
		t.Errorf("a new file system of 1 GiB takes %d bytes of its layer", used)
	}
	if err := os.Truncate(second, 3<<30); err != nil {
		t.Fatal(err)
	}
	v, lines = write("cat /var/own/file; df -m /var/own | sed -n '$p' | tr -s ' '")
	if len(lines) != 2 || lines[0] != "stdout: kept" {
		t.Fatalf("second boot: %q", lines)
	}
	if booted := v.seen[0]; booted.Formatted != nil {
		t.Errorf("second boot: %+v", booted)
	}
	if size := atoi(t, strings.Fields(lines[1])[2]); size < 2800 {
		t.Errorf("the volume has %d MiB after it grew to 3 GiB: %q", size, lines[1])
	}
	checkDisk(t, second)
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	out, err := exec.Command("du", "-k", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return int64(atoi(t, strings.Fields(string(out))[0])) << 10
}

func TestVolumeThatIsNotOursIsRefused(t *testing.T) {
	foreign := disk(t, 64<<20)
	if err := os.WriteFile(foreign, append([]byte("XFSB"), bytes.Repeat([]byte{7}, 4<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(foreign)
	if err != nil {
		t.Fatal(err)
	}
	v := boot(t, guest.Config{Argv: []string{"true"}, Volumes: []guest.Volume{{Name: "vol_x", Path: "/data", MkFS: true}}},
		vmOptions{volumes: []string{foreign}})
	ev := v.wait(guest.EventFailed)
	if ev.Stage != "prepare the volumes" || !strings.Contains(ev.Error, "volume vol_x has no ext4 file system but an XFS") {
		t.Errorf("failed: %+v", ev)
	}
	v.wait(guest.EventPowerOff)
	v.waitEnd()
	after, err := os.ReadFile(foreign)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the volume was written to")
	}
}

func TestBlankVolumeThatShouldHaveDataIsRefused(t *testing.T) {
	path := disk(t, 64<<20)
	v := boot(t, guest.Config{Argv: []string{"true"}, Volumes: []guest.Volume{{Name: "vol_y", Path: "/data"}}},
		vmOptions{volumes: []string{path}})
	ev := v.wait(guest.EventFailed)
	if !strings.Contains(ev.Error, "volume vol_y is blank, but was used before") {
		t.Errorf("failed: %+v", ev)
	}
	v.waitEnd()
	if allocated(t, path) != 0 {
		t.Error("the volume was written to")
	}
}
