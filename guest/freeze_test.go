package guest_test

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/guest"
)

// resize tells QEMU that a disk of a VM has grown.
func resize(t *testing.T, socket, drive string, size drover.Bytes) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, `{"execute":"qmp_capabilities"}{"execute":"block_resize","arguments":{"device":"%s","size":%d},"id":1}`, drive, size); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if strings.Contains(lines.Text(), `"error"`) {
			t.Fatal(lines.Text())
		}
		if strings.Contains(lines.Text(), `"id": 1`) {
			return
		}
	}
	t.Fatal("QEMU did not answer")
}

func TestAVolumeIsFrozenThawedAndGrownWhileItIsInUse(t *testing.T) {
	volume, qmp := disk(t, 512<<20), filepath.Join(t.TempDir(), "qmp")
	v := boot(t, guest.Config{Argv: []string{"sleep", "1000"}, Volumes: []guest.Volume{{Name: "vol_a", Path: "/data", MkFS: true}}},
		vmOptions{volumes: []string{volume}, args: []string{"-qmp", "unix:" + qmp + ",server=on,wait=off"}})
	v.wait(guest.EventStarted)
	c := v.dial()
	ctx := t.Context()
	write := func(name string) {
		t.Helper()
		if res := sh(t, c, fmt.Sprintf("(touch /data/%s; sync; touch /tmp/%s) >/dev/null 2>&1 </dev/null &", name, name)); res.ExitCode != 0 {
			t.Fatalf("%+v", res)
		}
	}
	written := func(name string) bool { return sh(t, c, "test -e /tmp/"+name).ExitCode == 0 }
	if err := c.Freeze(ctx, "vol_a", guest.MaxFreeze); err != nil {
		t.Fatal(err)
	}
	if err := c.Freeze(ctx, "vol_a", guest.MaxFreeze); !drover.Is(err, drover.Conflict) {
		t.Errorf("frozen twice: %v", err)
	}
	write("held")
	if res := sh(t, c, "sleep 1"); res.ExitCode != 0 || written("held") {
		t.Errorf("a frozen file system was written: %+v", res)
	}
	if err := c.Grow(ctx, "vol_a", 0); !drover.Is(err, drover.Conflict) {
		t.Errorf("grown while it is frozen: %v", err)
	}
	if err := c.Thaw(ctx, "vol_a"); err != nil {
		t.Fatal(err)
	}
	until(t, "the held write is made", func() bool { return written("held") })
	if err := c.Thaw(ctx, "vol_a"); !drover.Is(err, drover.Precondition) {
		t.Errorf("thawed twice: %v", err)
	}
	// A host that forgets its guest.
	if err := c.Freeze(ctx, "vol_a", 500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	write("forgotten")
	until(t, "the guest thaws by itself", func() bool { return written("forgotten") })
	if err := c.Thaw(ctx, "vol_a"); !drover.Is(err, drover.Precondition) {
		t.Errorf("thawed too late: %v", err)
	}
	if err := c.Freeze(ctx, "vol_b", 0); !drover.Is(err, drover.NotFound) {
		t.Errorf("a volume that is not there: %v", err)
	}

	resize(t, qmp, "v0", 2*drover.GiB)
	if err := c.Grow(ctx, "vol_a", 2*drover.GiB); err != nil {
		t.Fatal(err)
	}
	res := sh(t, c, "df -m /data | sed -n '$p' | tr -s ' '")
	if size := atoi(t, strings.Fields(string(res.Stdout))[1]); size < 1900 {
		t.Errorf("the file system has %d MiB: %s", size, res.Stdout)
	}
	if err := c.Grow(ctx, "vol_a", 2*drover.GiB); err != nil {
		t.Errorf("grown once more: %v", err)
	}
	if err := c.Grow(ctx, "vol_a", 3*drover.GiB); !drover.Is(err, drover.Unavailable) {
		t.Errorf("grown before its disk: %v", err)
	}
	if err := c.Stop(ctx, "SIGTERM", time.Second); err != nil {
		t.Fatal(err)
	}
	if ev := v.wait(guest.EventPowerOff); ev.Error != "" {
		t.Errorf("poweroff: %+v", ev)
	}
	v.waitEnd()
	checkDisk(t, volume)
}

// until polls a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(bootDeadline); !ok(); {
		if time.Now().After(end) {
			t.Fatal("it did not happen: " + what)
		}
	}
}
