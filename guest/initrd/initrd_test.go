package initrd

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// entry is what readArchive finds.
type entry struct {
	Mode uint32
	Data string
}

// readArchive reads a newc archive by its specification, and not by how Archive writes it.
func readArchive(t *testing.T, b []byte) map[string]entry {
	t.Helper()
	out := map[string]entry{}
	for at := 0; ; {
		if at%4 != 0 || string(b[at:at+6]) != "070701" {
			t.Fatalf("no header at %d: %q", at, b[at:at+6])
		}
		field := func(i int) int {
			n, err := strconv.ParseUint(string(b[at+6+8*i:at+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		size, nameSize := field(6), field(11)
		name := string(b[at+110 : at+110+nameSize-1])
		data := (at + 110 + nameSize + 3) &^ 3
		if name == "TRAILER!!!" {
			return out
		}
		out[name] = entry{Mode: uint32(field(1)), Data: string(b[data : data+size])}
		at = (data + size + 3) &^ 3
	}
}

func TestArchiveIsWhatTheKernelReads(t *testing.T) {
	var b bytes.Buffer
	a := NewArchive(&b)
	a.Dir("d", 0o755)
	for size := range 6 {
		a.File("d/"+strings.Repeat("f", size+1), 0o644, bytes.Repeat([]byte{'x'}, size))
	}
	a.Symlink("l", "d/f")
	a.Device("console", 0o600, 5, 1)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	want := map[string]entry{"d": {Mode: 0o40755}, "l": {0o120777, "d/f"}, "console": {Mode: 0o20600}}
	for size := range 6 {
		want["d/"+strings.Repeat("f", size+1)] = entry{0o100644, strings.Repeat("x", size)}
	}
	if diff := cmp.Diff(want, readArchive(t, b.Bytes())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if b.Len()%512 != 0 {
		t.Errorf("the archive has %d bytes", b.Len())
	}
}

func FuzzArchive(f *testing.F) {
	f.Add("name", []byte("data"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		if name == "" || name == trailer || strings.Contains(name, "\x00") {
			return
		}
		var b bytes.Buffer
		a := NewArchive(&b)
		a.File(name, 0o600, data)
		a.File("after", 0o600, nil)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		got := readArchive(t, b.Bytes())
		if got[name].Data != string(data) || len(got) != 2 && name != "after" {
			t.Errorf("got %v", got)
		}
	})
}

// errWriter fails after some bytes.
type errWriter struct{ left int }

func (w *errWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, os.ErrClosed
	}
	return len(b), nil
}

func TestArchiveTellsOfAFailedWrite(t *testing.T) {
	a := NewArchive(&errWriter{left: 1 << 20})
	a.File("large", 0o600, make([]byte, 4<<20))
	if err := a.Close(); err == nil {
		t.Error("no error")
	}
}

// kernel is where script/bootstrap leaves the guest kernel's modules.
const kernel = "../../build/guest/modules"

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	modules, err := Modules(kernel)
	if err != nil {
		t.Fatalf("%v (run script/bootstrap)", err)
	}
	at := map[string]int{}
	for i, m := range modules {
		depends, err := dependencies(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range depends {
			if _, there := at[strings.ReplaceAll(d, "-", "_")]; !there {
				t.Errorf("%s comes before %s, which it needs", m.Name, d)
			}
		}
		at[m.Name] = i
		if bytes.HasSuffix(m.Data, signatureEnd) || bytes.Contains(m.Data, []byte("\x00.BTF\x00")) {
			t.Errorf("%s is not slim", m.Name)
		}
	}
	for _, name := range []string{"virtio_blk", "virtio_console", "virtio_net"} {
		if _, there := at[name]; !there {
			t.Errorf("no %s", name)
		}
	}
}

func TestModulesThatAreMissingAreNamed(t *testing.T) {
	dir := t.TempDir()
	if _, err := Modules(dir); err == nil {
		t.Error("an empty directory is no error")
	}
	if err := os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte("kernel/drivers/virtio/virtio_pci.ko\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Modules(dir); err == nil || !strings.Contains(err.Error(), "virtio_mmio") {
		t.Errorf("got %v", err)
	}
}

func TestSlimRefusesABrokenSignature(t *testing.T) {
	module := append(binary.BigEndian.AppendUint32(make([]byte, 8), 1000), signatureEnd...)
	if _, err := slim(module); err == nil {
		t.Error("no error")
	}
}

func TestProgramComesWithItsLibraries(t *testing.T) {
	tools, err := ReadTools("/sbin")
	if err != nil {
		t.Fatal(err)
	}
	p := tools[0]
	if p.Loader == "" || p.Libraries["libext2fs.so.2"] == nil || p.Libraries["libc.so.6"] == nil {
		t.Errorf("loader %q, %d libraries", p.Loader, len(p.Libraries))
	}
	var b bytes.Buffer
	if err := Write(&b, Contents{Init: []byte("init"), Modules: []Module{{Name: "m", Data: []byte("m")}}, Tools: tools}); err != nil {
		t.Fatal(err)
	}
	got := readArchive(t, b.Bytes())
	for _, name := range []string{"init", "modules/00-m.ko", "sbin/mke2fs", "sbin/e2fsck", "lib/libc.so.6", strings.TrimPrefix(p.Loader, "/"),
		"dev/console", "root"} {
		if _, there := got[name]; !there {
			t.Errorf("no %s in the image", name)
		}
	}
}
