package nbd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover"
)

// Other people's clients against our server. Each test runs over a unix socket and over TCP with mutual TLS where the
// program can.

// uri names an export for libnbd and QEMU.
func uri(socket, export string) string { return "nbd+unix:///" + export + "?socket=" + socket }

// sample is content with data, zeroes, and an end that is no whole block.
func sample(size int) []byte {
	p := make([]byte, size)
	fill(p[:size/4], 1)
	fill(p[size/2:size/2+size/8], 2)
	fill(p[size-1000:], 3)
	return p
}

// exported serves memory with the content on a unix socket, once writable ("disk") and once read-only ("frozen"), and refuses "old".
func exported(t *testing.T, content []byte) (socket string, m *memory, s *shelf) {
	t.Helper()
	m = newMemory(t, len(content))
	copy(m.content, content)
	s = newShelf()
	s.add("disk", &quick{memory: m}, len(content), false)
	s.add("frozen", m, len(content), true)
	s.errors["old"] = drover.Errorf(drover.Conflict, "stale epoch 4 for vol_1: 5 is open")
	s.errors["secret"] = drover.Errorf(drover.Denied, "host h2 may not read vol_1")
	return startServer(t, "unix", s, nil), m, s
}

const sampleSize = 4<<20 + 512

func TestNbdinfoDescribesExports(t *testing.T) {
	nbdinfo := tool(t, "nbdinfo", "libnbd-bin")
	socket, _, _ := exported(t, sample(sampleSize))
	var got struct {
		Exports []struct {
			Size     int64    `json:"export-size"`
			Contexts []string `json:"contexts"`
			ReadOnly bool     `json:"is_read_only"`
			Multi    bool     `json:"can_multi_conn"`
			FUA      bool     `json:"can_fua"`
			Flush    bool     `json:"can_flush"`
			Trim     bool     `json:"can_trim"`
			Zero     bool     `json:"can_zero"`
			Fast     bool     `json:"can_fast_zero"`
			Cache    bool     `json:"can_cache"`
			DF       bool     `json:"can_df"`
			Min      int      `json:"block_size_minimum"`
			Pref     int      `json:"block_size_preferred"`
			Max      int      `json:"block_size_maximum"`
		} `json:"exports"`
	}
	for _, readOnly := range []bool{false, true} {
		name := map[bool]string{false: "disk", true: "frozen"}[readOnly]
		out := run(t, nbdinfo, "--json", uri(socket, name))
		if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Exports) != 1 {
			t.Fatalf("%v in %s", err, out)
		}
		e := got.Exports[0]
		if e.Size != sampleSize || e.ReadOnly != readOnly || !e.Multi || !e.DF || e.Cache || e.Fast || e.Min != 1 || e.Pref != 4096 || e.Max != 32<<20 {
			t.Errorf("%s: %+v", name, e)
		}
		if e.FUA == readOnly || e.Flush == readOnly || e.Trim == readOnly || e.Zero == readOnly {
			t.Errorf("%s: %+v", name, e)
		}
		if fmt.Sprint(e.Contexts) != "[base:allocation drover:present]" {
			t.Errorf("%s: contexts %v", name, e.Contexts)
		}
	}
	if out := run(t, nbdinfo, "--list", uri(socket, "")); !strings.Contains(out, `export="disk"`) || !strings.Contains(out, `export="frozen"`) {
		t.Errorf("the list is:\n%s", out)
	}
}

func TestToolsShowWhyAnExportIsRefused(t *testing.T) {
	nbdinfo, qemuImg := tool(t, "nbdinfo", "libnbd-bin"), tool(t, "qemu-img", "qemu-utils")
	t.Setenv("LIBNBD_DEBUG", "1") // libnbd 1.14 tells the server's text there only
	socket, _, _ := exported(t, sample(sampleSize))
	for name, want := range map[string]string{"old": "stale epoch 4", "secret": "may not read", "unknown": `no export "unknown"`} {
		for _, args := range [][]string{{nbdinfo}, {qemuImg, "info"}} {
			out, err := try(args[0], append(args[1:], uri(socket, name))...)
			if err == nil || !strings.Contains(out, want) {
				t.Errorf("%s of %s: %v, %q; want a failure with %q", args[0], name, err, out, want)
			}
		}
	}
}

func TestNbdinfoMapsHolesAndData(t *testing.T) {
	nbdinfo := tool(t, "nbdinfo", "libnbd-bin")
	content := make([]byte, 1<<20)
	fill(content[64<<10:128<<10], 1)
	fill(content[1<<20-4096:], 1)
	socket, _, _ := exported(t, content)
	type extent struct {
		Offset, Length int64
		Type           int
	}
	for name, want := range map[string][]extent{
		ContextAllocation: {{0, 64 << 10, 3}, {64 << 10, 64 << 10, 0}, {128 << 10, 892 << 10, 3}, {1020 << 10, 4 << 10, 0}},
		ContextPresent:    {{0, 64 << 10, 0}, {64 << 10, 64 << 10, 1}, {128 << 10, 892 << 10, 0}, {1020 << 10, 4 << 10, 1}},
	} {
		var got []extent
		if err := json.Unmarshal([]byte(run(t, nbdinfo, "--map="+name, "--json", uri(socket, "disk"))), &got); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestNbdcopyBothWays(t *testing.T) {
	nbdcopy := tool(t, "nbdcopy", "libnbd-bin")
	content := sample(sampleSize)
	socket, m, _ := exported(t, content)
	file := filepath.Join(t.TempDir(), "copy")
	for _, connections := range []string{"1", "4"} { // the server gives some a thread and some none
		run(t, nbdcopy, "--connections="+connections, "--request-size=65536", uri(socket, "frozen"), file)
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("the copy over %s connections differs (%v)", connections, err)
		}
	}
	fill(content, 9)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, nbdcopy, "--flush", file, uri(socket, "disk"))
	if !bytes.Equal(m.bytes(), content) || m.dirty {
		t.Fatalf("the export differs from what was copied to it, or was not flushed (dirty: %v)", m.dirty)
	}
	fill(content, 11)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, nbdcopy, "--connections=4", "--flush", file, uri(socket, "disk"))
	if !bytes.Equal(m.bytes(), content) || m.dirty {
		t.Fatalf("the export differs from what was copied to it over 4 connections, or was not flushed (dirty: %v)", m.dirty)
	}
	if out, err := try(nbdcopy, file, uri(socket, "frozen")); err == nil {
		t.Fatalf("nbdcopy wrote to a read-only export: %s", out)
	}
}

func TestQemuImgConvertsAndCompares(t *testing.T) {
	qemuImg := tool(t, "qemu-img", "qemu-utils")
	content := sample(sampleSize)
	socket, m, _ := exported(t, content)
	if out := run(t, qemuImg, "info", uri(socket, "disk")); !strings.Contains(out, fmt.Sprintf("(%d bytes)", sampleSize)) {
		t.Errorf("info: %s", out)
	}
	file := filepath.Join(t.TempDir(), "copy")
	run(t, qemuImg, "convert", "-f", "raw", "-O", "raw", uri(socket, "disk"), file)
	run(t, qemuImg, "compare", "-f", "raw", "-F", "raw", file, uri(socket, "disk"))
	if err := m.Zero(t.Context(), 0, sampleSize, false, false); err != nil {
		t.Fatal(err)
	}
	if out, err := try(qemuImg, "compare", "-f", "raw", "-F", "raw", file, uri(socket, "disk")); err == nil {
		t.Fatalf("different images compare as equal: %s", out)
	}
	run(t, qemuImg, "convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "raw", file, uri(socket, "disk"))
	run(t, qemuImg, "compare", "-f", "raw", "-F", "raw", file, uri(socket, "disk"))
	if !bytes.Equal(m.bytes(), content) {
		t.Fatal("the content differs after a round trip")
	}
	var extents []struct {
		Start, Length int64
		Zero, Data    bool
	}
	if err := json.Unmarshal([]byte(run(t, qemuImg, "map", "--output=json", "-f", "raw", uri(socket, "disk"))), &extents); err != nil || len(extents) < 4 {
		t.Fatalf("%v: %+v", err, extents)
	}
}

func TestQemuIOWritesFlushesDiscardsAndZeroes(t *testing.T) {
	qemuIO := tool(t, "qemu-io", "qemu-utils")
	socket, m, _ := exported(t, sample(sampleSize))
	out := run(t, qemuIO, "-f", "raw", "-d", "unmap", "-t", "none",
		"-c", "write -P 0x11 4k 8k", "-c", "write -f -P 0x22 1M 64k", "-c", "flush",
		"-c", "write -z 5k 1k", "-c", "write -z -u 6k 1k", "-c", "discard 1M 4k",
		"-c", "aio_write -P 0x33 2M 1M", "-c", "aio_write -P 0x44 3M 512k", "-c", "aio_flush",
		"-c", "read -P 0x11 4k 1k", "-c", "read -P 0 5k 2k", "-c", "read -P 0x11 7k 5k",
		"-c", "read -P 0 1M 4k", "-c", "read -P 0x22 1028k 60k", "-c", "read -P 0x33 2M 1M", "-c", "read -P 0x44 3M 512k",
		uri(socket, "disk"))
	if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
		t.Fatal(out)
	}
	want := sample(sampleSize)
	set := func(off, n int, v byte) {
		for i := off; i < off+n; i++ {
			want[i] = v
		}
	}
	set(4<<10, 8<<10, 0x11)
	set(1<<20, 64<<10, 0x22)
	set(5<<10, 2<<10, 0)
	set(1<<20, 4<<10, 0)
	set(2<<20, 1<<20, 0x33)
	set(3<<20, 512<<10, 0x44)
	if !bytes.Equal(m.bytes(), want) {
		t.Error("the content is not what qemu-io wrote")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flushes == 0 || m.fua == 0 || m.kept == 0 || m.dirty {
		t.Errorf("flushes %d, writes with FUA %d, zeroed in place %d, dirty %v", m.flushes, m.fua, m.kept, m.dirty)
	}
}

func TestNbdshSeesTheProtocolsErrors(t *testing.T) {
	python := tool(t, "/usr/bin/python3", "python3-libnbd")
	if out, err := try(python, "-c", "import nbd"); err != nil {
		t.Skipf("python3-libnbd is not installed: %s", out)
	}
	socket, _, _ := exported(t, sample(sampleSize))
	script := fmt.Sprintf(`
import nbd, errno
def expect(number, f):
    try:
        f()
    except nbd.Error as e:
        assert e.errnum == number, (e.errnum, number, e.string)
        return
    raise Exception("no error %%d" %% number)
size = %d
for structured in (True, False):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    if structured: h.add_meta_context("base:allocation")
    h.set_strict_mode(0)
    h.connect_uri(%q)
    assert h.get_structured_replies_negotiated() == structured
    assert h.get_size() == size
    expect(errno.EINVAL, lambda: h.pread(1000, size - 999))
    expect(errno.EINVAL, lambda: h.pread(1, 1 << 62))
    expect(errno.ENOSPC, lambda: h.pwrite(b"x" * 1000, size - 999))
    expect(errno.ENOSPC, lambda: h.zero(1000, size - 999))
    expect(errno.EINVAL, lambda: h.trim(1000, size - 999))
    expect(errno.EINVAL, lambda: h.trim(0, 0))
    expect(errno.EINVAL, lambda: h.pwrite(b"", 0))
    expect(errno.EINVAL, lambda: h.cache(512, 0))
    expect(errno.EINVAL, lambda: h.pread(512, 0, 0x8000))
    expect(errno.EINVAL, lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO))
    if not structured: expect(errno.EINVAL, lambda: h.block_status(512, 0, lambda *a: 0))
    h.pwrite(b"after all that" , 100)
    assert h.pread(14, 100) == b"after all that"
    h.pwrite(b"x", size - 1, nbd.CMD_FLAG_FUA)
    h.flush()
    if structured:
        seen = []
        h.block_status(size, 0, lambda name, off, e, err: seen.append((name, len(e) // 2)), nbd.CMD_FLAG_REQ_ONE)
        assert seen == [("base:allocation", 1)], seen
    h.shutdown()
h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(%q)
expect(errno.EPERM, lambda: h.pwrite(b"x", 0))
expect(errno.EPERM, lambda: h.trim(512, 0))
expect(errno.EPERM, lambda: h.zero(512, 0))
expect(errno.EINVAL, lambda: h.flush())
chunks = []
buf = h.pread_structured(size, 0, lambda data, off, kind, err: chunks.append((off, len(data), kind)), nbd.CMD_FLAG_DF)
assert chunks == [(0, size, nbd.READ_DATA)], chunks
h.shutdown()
h = nbd.NBD()
h.connect_uri(%q)
chunks = []
buf = h.pread_structured(size, 0, lambda data, off, kind, err: chunks.append((off, len(data), kind)))
assert any(k == nbd.READ_HOLE for _, _, k in chunks), chunks
assert sum(n for _, n, _ in chunks) == size, chunks
h.shutdown()
`, sampleSize, uri(socket, "disk"), uri(socket, "frozen"), uri(socket, "disk"))
	run(t, python, "-c", script)
}
