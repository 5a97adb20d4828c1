package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/qemu"
)

// writers is a guest's script: four processes that write a block each time, make it durable, and say so.
const writers = `
w() {
	i=0
	while [ $i -lt 900 ]; do
		if echo "$1 $i" | dd of=/dev/vdc bs=4k count=1 seek=$(($1*1000+i)) conv=sync,fsync 2>/dev/null; then echo "wrote $1 $i."; else echo "failed $1 $i"; fi
		i=$((i+1))
	done
}
for n in 0 1 2 3; do w $n & done
wait
`

// guestVM is a real VM whose disks are layers of a storage daemon in a process of its own.
type guestVM struct {
	t    *testing.T
	host *processHost
	dir  string
	spec drover.VMSpec
	d    *qemu.Driver
	// writers is how many of the guest's processes write.
	writers int
}

const vmID drover.MachineID = "0123456789abcd"

// newGuestVM makes the layers of a machine that runs a script, which has the console as its output.
func newGuestVM(t *testing.T, transport drover.Transport, script string) *guestVM {
	t.Helper()
	v := &guestVM{t: t, host: newHeldHost(t), dir: shortDir(t), writers: 4}
	v.host.start()
	root := v.rootImage(script)
	v.spec = drover.VMSpec{Machine: vmID, CPUs: 1, MemoryMB: 192, MAC: vmID.MAC(), ConfigPath: filepath.Join(v.dir, "config"),
		ConsolePath: filepath.Join(v.dir, "console"), LogPath: filepath.Join(v.dir, "log"), StatusPath: filepath.Join(v.dir, "status"),
		AgentSocket: filepath.Join(v.dir, "agent")}
	config := must[[]byte](t)(json.Marshal(map[string]any{"version": 1, "run": "1", "hostname": string(vmID), "argv": []string{"/bin/main"}}))
	noErr(t, os.WriteFile(v.spec.ConfigPath, append(config, make([]byte, 512-len(config)%512)...), 0o600))
	for _, id := range []drover.LayerID{drover.LayerID(drover.RootDisk(vmID)), "vol_0123456789abcdef"} {
		v.host.create(id, drover.Bytes(len(root)))
		a := must[drover.Attachment](t)(v.host.Open(t.Context(), id, 1))
		if id != "vol_0123456789abcdef" {
			c := v.host.dial(a.Export)
			for off := int64(0); off < int64(len(root)); off += mib {
				noErr(t, c.WriteAt(t.Context(), root[off:off+mib], off, false))
			}
			v.spec.Root = must[drover.Attachment](t)(a.Over(transport))
		} else {
			v.spec.Volumes = []drover.Attachment{must[drover.Attachment](t)(a.Over(transport))}
		}
	}
	// More disks, attached in both ways: the firmware once ran over those of a VM that had two.
	for i, t := range []drover.Transport{drover.TransportNBD, drover.TransportVhost} {
		id := drover.LayerID(fmt.Sprintf("vol_more%d", i))
		v.host.create(id, drover.MiB)
		v.spec.Volumes = append(v.spec.Volumes, must[drover.Attachment](v.t)(must[drover.Attachment](v.t)(v.host.Open(v.t.Context(), id, 1)).Over(t)))
	}
	v.d = v.driver("vm")
	return v
}

// rootImage makes an ext4 file system with busybox and the script.
func (v *guestVM) rootImage(script string) []byte {
	v.t.Helper()
	tree, file := filepath.Join(v.dir, "tree"), filepath.Join(v.dir, "root")
	for _, name := range []string{"bin", "proc", "sys", "dev", "tmp", "etc", "run"} {
		noErr(v.t, os.MkdirAll(filepath.Join(tree, name), 0o755))
	}
	busybox := must[[]byte](v.t)(os.ReadFile("/bin/busybox"))
	noErr(v.t, os.WriteFile(filepath.Join(tree, "bin/busybox"), busybox, 0o755))
	head := "#!/bin/busybox sh\nexec >/dev/ttyS0 2>&1\nexport PATH=/bin\n/bin/busybox --install -s /bin\n"
	noErr(v.t, os.WriteFile(filepath.Join(tree, "bin/main"), []byte(head+script), 0o755))
	noErr(v.t, os.WriteFile(file, nil, 0o600))
	noErr(v.t, os.Truncate(file, 32<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-d", tree, file).CombinedOutput(); err != nil {
		v.t.Fatalf("mkfs: %v %s", err, out)
	}
	return must[[]byte](v.t)(os.ReadFile(file))
}

// driver makes a driver whose VMs are killed at the end.
func (v *guestVM) driver(name string) *qemu.Driver {
	v.t.Helper()
	guest := must[string](v.t)(filepath.Abs("../build/guest"))
	d := must[*qemu.Driver](v.t)(qemu.New(v.t.Context(), qemu.Config{RunDir: filepath.Join(v.dir, name), GuestDir: guest, Accel: drover.AccelTCG, Log: testLog(v.t)}))
	v.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if vm, err := d.Find(ctx, vmID); err == nil {
			if err := vm.Kill(ctx); err != nil {
				v.t.Error(err)
			}
		}
		if err := d.Close(); err != nil {
			v.t.Error(err)
		}
	})
	return d
}

func (v *guestVM) console() string {
	b, err := os.ReadFile(v.spec.ConsolePath)
	if err != nil && !os.IsNotExist(err) {
		v.t.Error(err)
	}
	return string(b)
}

// await waits until the guest has printed the text.
func (v *guestVM) await(text string) {
	v.t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(v.console(), text) {
		if <-tick.C; time.Now().After(deadline) {
			v.t.Fatalf("the guest never printed %q:\n%s", text, v.console())
		}
	}
}

// last is the number of the last block that a writer of the guest has written.
func (v *guestVM) last(writer int) (last int) {
	for _, line := range strings.Split(v.console(), "\n") {
		var n, i int
		if _, err := fmt.Sscanf(strings.TrimSpace(line), "wrote %d %d.", &n, &i); err == nil && n == writer {
			last = max(last, i)
		}
	}
	return last
}

// goesOn waits until every writer has written some more blocks.
func (v *guestVM) goesOn() {
	v.t.Helper()
	for n := range v.writers {
		v.await(fmt.Sprintf("wrote %d %d.", n, v.last(n)+4))
	}
}

// intact ends the VM and looks for every block that the guest said it had written.
func (v *guestVM) intact(vm *qemu.VM) {
	v.t.Helper()
	noErr(v.t, vm.Kill(v.t.Context()))
	text := v.console()
	for _, bad := range []string{"failed", "error", "Buffer I/O"} {
		if strings.Contains(text, bad) {
			v.t.Errorf("the guest noticed:\n%s", text)
		}
	}
	c := v.host.dial("vol_0123456789abcdef")
	for n := range v.writers {
		for i := range v.last(n) + 1 {
			got := make([]byte, 4096)
			noErr(v.t, c.ReadAt(v.t.Context(), got, int64(n*1000+i)*4096))
			if want := fmt.Sprintf("%d %d\n", n, i); !bytes.HasPrefix(got, []byte(want)) {
				v.t.Fatalf("block %d of writer %d is %.20q", i, n, got)
			}
		}
	}
}

// A real guest writes while its storage daemon is killed and started again: it sees a pause and no error, and nothing is lost.
func TestGuestOutlivesTheDaemon(t *testing.T) {
	for _, transport := range []drover.Transport{drover.TransportNBD, drover.TransportVhost} {
		t.Run(string(transport), func(t *testing.T) {
			v := newGuestVM(t, transport, writers)
			vm := must[*qemu.VM](t)(v.d.Start(t.Context(), v.spec))
			v.await("wrote 3 2.")
			v.host.kill()
			v.host.start()
			v.goesOn()
			v.intact(vm)
		})
	}
}

// The daemon may die at any moment of a boot, too: QEMU does not notice that before the guest uses the disk.
func TestGuestBootsOverTheDeathOfTheDaemon(t *testing.T) {
	v := newGuestVM(t, drover.TransportVhost, writers)
	vm := must[*qemu.VM](t)(v.d.Start(t.Context(), v.spec))
	for _, disk := range []drover.Attachment{v.spec.Root, v.spec.Volumes[0]} {
		connected(t, disk.Socket)
	}
	v.host.kill()
	v.host.start()
	v.goesOn()
	v.intact(vm)
}

// connected waits until somebody has connected to a unix socket.
func connected(t *testing.T, path string) {
	t.Helper()
	const established = " 03 "
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		for line := range strings.Lines(string(must[[]byte](t)(os.ReadFile("/proc/net/unix")))) {
			if strings.HasSuffix(strings.TrimSpace(line), " "+path) && strings.Contains(line, established) {
				return
			}
		}
	}
	t.Fatalf("nobody connects to %s", path)
}
