package guest_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"drover/guest"
)

// brokenDisk makes an ext4 file system with the file /kept and the directory /inner, which has files of its own.
func brokenDisk(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	if err := os.Mkdir(filepath.Join(tree, "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kept", "inner/one", "inner/two"} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path := disk(t, 128<<20)
	if out, err := exec.Command("/sbin/mkfs.ext4", "-q", "-F", "-b", strconv.Itoa(fsBlock), "-m", "0", "-d", tree, path).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	return path
}

// debugfs makes one request of a file system that is not mounted, and returns the last number of the answer.
func debugfs(t *testing.T, path, request string) int64 {
	t.Helper()
	out, err := exec.Command("/sbin/debugfs", "-w", "-R", request, path).CombinedOutput()
	if err != nil {
		t.Fatalf("debugfs %s: %v\n%s", request, err, out)
	}
	numbers := regexp.MustCompile(`\d+`).FindAllString(string(out), -1)
	return int64(atoi(t, numbers[len(numbers)-1]))
}

// overwrite writes into a disk at an offset in bytes.
func overwrite(t *testing.T, path string, at int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// blockBitmap is the block of the first group's block bitmap.
func blockBitmap(t *testing.T, path string) int64 {
	t.Helper()
	out, err := exec.Command("/sbin/dumpe2fs", path).CombinedOutput()
	found := regexp.MustCompile(`Block bitmap at (\d+)`).FindSubmatch(out)
	if err != nil || found == nil {
		t.Fatalf("dumpe2fs: %v\n%s", err, out)
	}
	return int64(atoi(t, string(found[1])))
}

const fsBlock = 4096

// A host that had no room for a moment refuses writes, and ext4 ends its journal with an error. Its bitmaps may be older than its inodes then: without a repair, it becomes
// read-only at the first allocation after each mount.
func TestAFileSystemThatMetAnErrorIsMendedBeforeItIsMounted(t *testing.T) {
	path := brokenDisk(t)
	journal := debugfs(t, path, "bmap <8> 0") * fsBlock
	debugfs(t, path, "feature needs_recovery")
	overwrite(t, path, journal+0x20, binary.BigEndian.AppendUint32(nil, 0xfffffffb)) // s_errno: -5, EIO
	overwrite(t, path, blockBitmap(t, path)*fsBlock, make([]byte, fsBlock))

	v := boot(t, guest.Config{Argv: []string{"sh", "-c", "cat /data/kept; seq 100000 >/data/new && sync && wc -l </data/new"},
		Volumes: []guest.Volume{{Name: "vol_a", Path: "/data"}}}, vmOptions{volumes: []string{path}})
	v.wait(guest.EventPowerOff)
	v.waitEnd()
	lines := v.lines()
	if len(lines) != 3 || !strings.Contains(lines[0], "volume vol_a: its file system had errors and was repaired") {
		t.Fatalf("the machine's log: %q", lines)
	}
	if !slices.Equal(lines[1:], []string{"stdout: kept", "stdout: 100000"}) {
		t.Errorf("the machine's log: %q", lines)
	}
	checkDisk(t, path)
}

// A journal that cannot be replayed, because the host has no room for a block of it, is kept: what it promised is there as soon as there is room. e2fsck would
// forget the journal, and with it the directory.
func TestAJournalOutlivesABootOnAFullHost(t *testing.T) {
	path := brokenDisk(t)
	at := debugfs(t, path, "bmap /inner 0")
	promised := make([]byte, fsBlock)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(promised, at*fsBlock); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	block, commands := filepath.Join(t.TempDir(), "block"), filepath.Join(t.TempDir(), "commands")
	for file, data := range map[string]string{block: string(promised), commands: fmt.Sprintf("journal_open\njournal_write -b %d %s\njournal_close\n", at, block)} {
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("/sbin/debugfs", "-w", "-f", commands, path).CombinedOutput(); err != nil {
		t.Fatalf("debugfs: %v\n%s", err, out)
	}
	overwrite(t, path, at*fsBlock, make([]byte, fsBlock)) // it is in the journal only

	cfg := guest.Config{Argv: []string{"sh", "-c", "cat /data/inner/one"}, Volumes: []guest.Volume{{Name: "vol_a", Path: "/data"}}}
	v := boot(t, cfg, vmOptions{volumes: []string{path}, refused: at * fsBlock})
	if ev := v.wait(guest.EventFailed); !strings.Contains(ev.Error, "volume vol_a: cannot replay the journal of ") {
		t.Errorf("failed: %+v", ev)
	}
	v.waitEnd()
	v = boot(t, cfg, vmOptions{volumes: []string{path}})
	v.wait(guest.EventPowerOff)
	v.waitEnd()
	if lines := v.lines(); !slices.Equal(lines, []string{"stdout: inner/one"}) {
		t.Errorf("the machine's log: %q", lines)
	}
	checkDisk(t, path)
}

func TestAFileSystemThatCannotBeMendedIsMountedAsItIs(t *testing.T) {
	path := brokenDisk(t)
	overwrite(t, path, debugfs(t, path, "bmap /inner 0")*fsBlock, []byte(strings.Repeat("garbage ", fsBlock/8)))
	debugfs(t, path, "ssv state 3") // unmounted, but an error was met

	v := boot(t, guest.Config{Argv: []string{"sh", "-c", "cat /data/kept; echo x >/data/new; echo rc $?"},
		Volumes: []guest.Volume{{Name: "vol_a", Path: "/data"}}}, vmOptions{volumes: []string{path}})
	v.wait(guest.EventChecking)
	v.wait(guest.EventPowerOff)
	v.waitEnd()
	lines := v.lines()
	if len(lines) != 3 || !strings.Contains(lines[0], "volume vol_a: its file system has errors that are not repaired without a decision") {
		t.Fatalf("the machine's log: %q", lines)
	}
	if !slices.Equal(lines[1:], []string{"stdout: kept", "stdout: rc 0"}) {
		t.Errorf("the machine's log: %q", lines)
	}
}
