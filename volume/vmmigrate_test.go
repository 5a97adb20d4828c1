package volume

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"drover"
	"drover/qemu"
)

// calm is a guest's script that writes a block now and then. An emulated CPU that is busy can lose a page while QEMU migrates it, whatever
// the disk is attached by: between its look at "is this page written for the first time?" and the write itself the page may be copied.
const calm = `
i=0
while [ $i -lt 900 ]; do
	if echo "0 $i" | dd of=/dev/vdc bs=4k count=1 seek=$i conv=sync,fsync 2>/dev/null; then echo "wrote 0 $i."; else echo "failed 0 $i"; fi
	i=$((i+1))
	sleep 0.1
done
`

// qmp sends one command to QEMU's second control socket and returns its answer.
func (v *guestVM) qmp(socket, command string) map[string]any {
	v.t.Helper()
	c := must[net.Conn](v.t)(net.Dial("unix", socket))
	defer c.Close()
	lines := bufio.NewScanner(c)
	for i, text := range []string{"", `{"execute":"qmp_capabilities"}`, command} {
		if i > 0 {
			_ = must[int](v.t)(fmt.Fprintln(c, text))
		}
		for lines.Scan() && strings.Contains(lines.Text(), `"event"`) {
		}
	}
	var answer struct {
		Return map[string]any
		Error  any
	}
	if err := json.Unmarshal(lines.Bytes(), &answer); err != nil || answer.Error != nil {
		v.t.Fatalf("%s: %v %s", command, err, lines.Bytes())
	}
	return answer.Return
}

// incoming starts a second QEMU with the first one's command line, in another directory, that waits for the guest.
func (v *guestVM) incoming(vm *qemu.VM, socket string) *exec.Cmd {
	v.t.Helper()
	line := must[[]byte](v.t)(os.ReadFile("/proc/" + strconv.Itoa(vm.PID()) + "/cmdline"))
	text := strings.ReplaceAll(string(bytes.TrimRight(line, "\x00")), filepath.Join(v.dir, "vm"), filepath.Join(v.dir, "to"))
	text = strings.ReplaceAll(text, v.spec.AgentSocket, v.spec.AgentSocket+"2")
	noErr(v.t, os.MkdirAll(filepath.Join(v.dir, "to", string(vmID)), 0o700))
	args := append(strings.Split(text, "\x00")[1:], "-incoming", "unix:"+socket)
	cmd := exec.Command("qemu-system-x86_64", args...)
	cmd.Stderr = v.t.Output()
	noErr(v.t, cmd.Start())
	v.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone already
		_ = cmd.Wait()         // killed
	})
	eventually(v.t, func() error { _, err := os.Stat(socket); return err })
	return cmd
}

// A guest moves from one QEMU to another while it runs, and its disk goes on where it was. That what is written into its memory meanwhile is
// marked is package vhostuser's to test.
func TestGuestMigratesLive(t *testing.T) {
	v := newGuestVM(t, drover.TransportVhost, calm)
	v.writers = 1
	vm := must[*qemu.VM](t)(v.d.Start(t.Context(), v.spec))
	v.await("wrote 0 2.")

	socket := filepath.Join(v.dir, "migrate")
	v.incoming(vm, socket)
	op := filepath.Join(v.dir, "vm", string(vmID), "op.sock")
	v.qmp(op, `{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":4294967296}}`)
	v.qmp(op, `{"execute":"migrate","arguments":{"uri":"unix:`+socket+`"}}`)
	eventually(t, func() error {
		state := v.qmp(op, `{"execute":"query-migrate"}`)
		if state["status"] == "failed" {
			t.Fatalf("the migration failed: %v", state)
		}
		if state["status"] != "completed" {
			return fmt.Errorf("the migration is %v", state["status"])
		}
		return nil
	})
	v.goesOn()
	v.intact(vm)
}
