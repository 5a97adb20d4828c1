package ext4

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var testUUID = [16]byte{0x10, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}

// build makes an image and checks it with e2fsck.
func build(t *testing.T, opts Options, fill func(b *Builder)) (path string, res Result) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fs.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	opts.UUID = testUUID
	b, err := New(f, opts)
	if err != nil {
		t.Fatal(err)
	}
	fill(b)
	res, err = b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("e2fsck", "-fn", path).CombinedOutput(); err != nil {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
	return path, res
}

// must returns a function that fails the test on an error.
func must(t *testing.T) func(error) {
	return func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func debugfs(t *testing.T, image, command string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("debugfs", "-R", command, image)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("debugfs %s: %v %s", command, err, &stderr)
	}
	if _, rest, _ := strings.Cut(stderr.String(), "\n"); strings.TrimSpace(rest) != "" {
		t.Fatalf("debugfs %s: %s", command, rest)
	}
	return string(out)
}

func attr(mode uint16) Attr { return Attr{Mode: mode, MTime: time.Unix(1_600_000_000, 123_000_000)} }

func file(t *testing.T, b *Builder, path, content string) {
	t.Helper()
	must(t)(b.File(path, attr(0o644), int64(len(content)), strings.NewReader(content)))
}

func TestEveryKindOfFile(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 300_000) // 4.8 MB
	image, res := build(t, Options{MinSize: 1 << 30, Label: "drover"}, func(b *Builder) {
		ok := must(t)
		ok(b.Dir("etc", attr(0o755)))
		file(t, b, "etc/hostname", "hello\n")
		ok(b.File("bin/su", Attr{Mode: 0o4755, UID: 70_000, GID: 80_000, MTime: time.Unix(5, 0)}, int64(len(big)), bytes.NewReader(big)))
		ok(b.Link("bin/sudo", "/bin/su"))
		ok(b.Symlink("short", attr(0o777), "etc/hostname"))
		ok(b.Symlink("long", attr(0o777), strings.Repeat("x/", 200)))
		ok(b.Device("dev/null", attr(0o666), false, 1, 3))
		ok(b.Device("dev/big", attr(0o600), true, 259, 70_000))
		ok(b.FIFO("dev/pipe", attr(0o600)))
		ok(b.File("empty", attr(0o600), 0, strings.NewReader("")))
		capable := attr(0o755)
		capable.Xattrs = map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			"user.note": "hi", "com.apple.quarantine": "not for linux"}
		ok(b.File("bin/ping", capable, 3, strings.NewReader("png")))
		many := attr(0o644)
		many.Xattrs = map[string]string{"user.a": strings.Repeat("v", 1000), "user.b": strings.Repeat("w", 1001), "trusted.c": ""}
		ok(b.File("xattrs", many, 1, strings.NewReader("x")))
	})
	if res.Size != 1<<30 {
		t.Errorf("size %d", res.Size)
	}
	if got := debugfs(t, image, "cat /etc/hostname"); got != "hello\n" {
		t.Errorf("hostname %q", got)
	}
	if got := debugfs(t, image, "cat /bin/sudo"); got != string(big) {
		t.Errorf("the hard link has %d bytes of content, not those of its target", len(got))
	}
	stat := debugfs(t, image, "stat /bin/su")
	for _, want := range []string{"Mode:  04755", "User: 70000", "Group: 80000", "Links: 2", "Size: 4800000", "mtime: 0x00000005:00000000"} {
		if !strings.Contains(stat, want) {
			t.Errorf("stat of su lacks %q:\n%s", want, stat)
		}
	}
	for path, want := range map[string]string{
		"/short": `Fast link dest: "etc/hostname"`, "/long": "Size: 400", "/dev/null": "major/minor number: 01:03",
		"/dev/big": "major/minor number: 259:70000", "/dev/pipe": "Type: FIFO", "/etc": "mtime: 0x5f5e1000:1d535300",
	} {
		if got := debugfs(t, image, "stat "+path); !strings.Contains(got, want) {
			t.Errorf("stat of %s lacks %q:\n%s", path, want, got)
		}
	}
	if got := debugfs(t, image, "cat /long"); strings.TrimRight(got, "\x00") != strings.Repeat("x/", 200) {
		t.Errorf("long link %q", got)
	}
	if got := debugfs(t, image, "ea_list /bin/ping"); !strings.Contains(got, "security.capability (20) = 01 00 00 02 00 20") || strings.Contains(got, "apple") {
		t.Errorf("attributes of ping:\n%s", got)
	}
	if got := debugfs(t, image, "ea_get -V /xattrs user.b"); got != strings.Repeat("w", 1001)+"\n" {
		t.Errorf("user.b is %d bytes", len(got))
	}
}

func TestLayers(t *testing.T) {
	image, _ := build(t, Options{MinSize: GroupSize}, func(b *Builder) {
		ok := must(t)
		file(t, b, "a/old", "old")
		file(t, b, "a/kept", "kept")
		file(t, b, "gone/x/y", "y")
		file(t, b, "opaque/lower", "lower")
		file(t, b, "dirtofile/z", "z")
		file(t, b, "filetodir", "f")
		file(t, b, "shared", "shared")
		ok(b.Link("shared2", "shared"))
		b.NextLayer()
		file(t, b, "a/new", "new")
		ok(b.Whiteout("a/old"))
		ok(b.Whiteout("gone"))
		file(t, b, "opaque/upper", "upper")
		ok(b.Opaque("opaque"))
		file(t, b, "dirtofile", "now a file")
		ok(b.Dir("filetodir", attr(0o755)))
		file(t, b, "filetodir/inside", "inside")
		ok(b.Whiteout("shared"))
		file(t, b, "same", "same layer")
		ok(b.Whiteout("same")) // hides only what is older
		ok(b.Whiteout("never/was"))
	})
	ls := func(dir string) string {
		var names []string
		for line := range strings.Lines(debugfs(t, image, "ls -p "+dir)) {
			if f := strings.Split(line, "/"); len(f) > 5 && f[5] != "." && f[5] != ".." {
				names = append(names, f[5])
			}
		}
		return strings.Join(names, " ")
	}
	for dir, want := range map[string]string{
		"/": "lost+found a dirtofile filetodir opaque same shared2", "/a": "kept new", "/opaque": "upper", "/filetodir": "inside",
	} {
		got := strings.Fields(ls(dir))
		for _, name := range strings.Fields(want) {
			if !strings.Contains(" "+strings.Join(got, " ")+" ", " "+name+" ") {
				t.Errorf("%s lacks %s: %v", dir, name, got)
			}
		}
		if len(got) != len(strings.Fields(want)) {
			t.Errorf("%s has %v, want %s", dir, got, want)
		}
	}
	if got := debugfs(t, image, "cat /shared2"); got != "shared" {
		t.Errorf("what was left of a hard link: %q", got)
	}
}

func TestPathsStayInside(t *testing.T) {
	image, _ := build(t, Options{MinSize: GroupSize}, func(b *Builder) {
		ok := must(t)
		ok(b.Symlink("abs", attr(0o777), "/real"))
		ok(b.Symlink("up", attr(0o777), "../../../../real"))
		ok(b.Dir("real", attr(0o755)))
		file(t, b, "abs/one", "1")
		file(t, b, "up/two", "2")
		file(t, b, "../../../real/three", "3")
		ok(b.Symlink("loop", attr(0o777), "loop"))
		if err := b.File("loop/x", attr(0o644), 0, strings.NewReader("")); !errors.Is(err, ErrInput) {
			t.Errorf("a path through a loop: %v", err)
		}
		file(t, b, "plain", "p")
		if err := b.Dir("plain/below", attr(0o755)); !errors.Is(err, ErrInput) {
			t.Errorf("a path through a file: %v", err)
		}
		ok(b.Dir("d", attr(0o755)))
		file(t, b, "d/child", "child")
		ok(b.Link("d", "d/child")) // takes the place of its own parent
		ok(b.Link("d", "d"))
	})
	for path, want := range map[string]string{"/real/one": "1", "/real/two": "2", "/real/three": "3", "/d": "child"} {
		if got := debugfs(t, image, "cat "+path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
}

// TestManyFilesAndGroups crosses groups with data, inodes, directory blocks and an extent tree with leaves.
func TestManyFilesAndGroups(t *testing.T) {
	const files = 20_000
	image, res := build(t, Options{MinSize: 1}, func(b *Builder) {
		for i := range files {
			file(t, b, fmt.Sprintf("d/%d/%x", i%3, sha256.Sum256([]byte{byte(i), byte(i >> 8)})), "x")
		}
		must(t)(b.File("zeroes", attr(0o644), 700<<20, io.LimitReader(zeroReader{}, 700<<20)))
		for i := range 300 {
			must(t)(b.Dir(fmt.Sprintf("many/%d", i), attr(0o755)))
		}
	})
	if res.Inodes != files+3+300+5 {
		t.Errorf("%d inodes", res.Inodes)
	}
	if out := debugfs(t, image, "stat /zeroes"); !strings.Contains(out, "(ETB0)") {
		t.Errorf("no leaf of the extent tree:\n%s", out)
	}
	st, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	if alloc := st.Sys().(*syscall.Stat_t).Blocks * 512; alloc > 120<<20 {
		t.Errorf("the zeroes take space: %d bytes allocated", alloc)
	}
	if st.Size() != res.Size || res.Size < 780<<20 {
		t.Errorf("size %d of %d", st.Size(), res.Size)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestFreedSpaceIsGivenBack(t *testing.T) {
	data := bytes.Repeat([]byte("data"), 5<<20)
	image, _ := build(t, Options{MinSize: GroupSize * 2}, func(b *Builder) {
		must(t)(b.File("big", attr(0o644), int64(len(data)), bytes.NewReader(data)))
		b.NextLayer()
		must(t)(b.Whiteout("big"))
	})
	st, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	if alloc := st.Sys().(*syscall.Stat_t).Blocks * 512; alloc > 1<<20 {
		t.Errorf("%d bytes are still allocated", alloc)
	}
}

// golden is the SHA-256 of the image that goldenContent makes. When it changes, FormatVersion must change with it:
// two hosts of different versions would otherwise give one name to different bytes.
const (
	golden        = "4b7219db6775dc98c03209bccf945b3fd744b092f2c5884d380b7db472df1217"
	goldenVersion = "1"
)

func goldenContent(t *testing.T) func(b *Builder) {
	return func(b *Builder) {
		ok := must(t)
		for i := range 200 {
			file(t, b, fmt.Sprintf("dir/%d", i), strings.Repeat("content ", i))
		}
		ok(b.Symlink("dir/link", attr(0o777), "0"))
		x := attr(0o6755)
		x.Xattrs = map[string]string{"user.z": "1", "user.a": "2", "security.capability": strings.Repeat("c", 20)}
		ok(b.File("cap", x, 0, strings.NewReader("")))
		ok(b.Device("dev/zero", attr(0o666), false, 1, 5))
		b.NextLayer()
		ok(b.Whiteout("dir/100"))
		ok(b.Link("dir/again", "dir/101"))
	}
}

func TestBytesNeverChange(t *testing.T) {
	sum := func() string {
		image, _ := build(t, Options{MinSize: 2 * GroupSize, Label: "golden"}, goldenContent(t))
		f, err := os.Open(image)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	first := sum()
	if second := sum(); second != first {
		t.Fatalf("two runs made different images: %s, %s", first, second)
	}
	if first != golden || FormatVersion != goldenVersion {
		t.Errorf("the image is %s with format version %s, the golden one is %s with %s: raise FormatVersion and set both",
			first, FormatVersion, golden, goldenVersion)
	}
}

func TestErrors(t *testing.T) {
	_, _ = build(t, Options{MinSize: GroupSize, MaxEntries: 8}, func(b *Builder) {
		acl := attr(0o644)
		for name, err := range map[string]error{
			"short content":  b.File("f", attr(0), 10, strings.NewReader("short")),
			"too large":      b.File("f", attr(0), MaxSize+1, strings.NewReader("")),
			"negative":       b.File("f", attr(0), -1, strings.NewReader("")),
			"long name":      b.Dir(strings.Repeat("n", 256), acl),
			"no target":      b.Link("l", "nothing"),
			"root as file":   b.Symlink("/", attr(0), "x"),
			"empty link":     b.Symlink("l", attr(0), ""),
			"long link":      b.Symlink("l", attr(0), strings.Repeat("x", 4096)),
			"device numbers": b.Device("d", attr(0), true, 1<<20, 0),
		} {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		var err error
		for i := 0; i < 10 && err == nil; i++ {
			err = b.Dir(fmt.Sprint(i), attr(0o755))
		}
		if !errors.Is(err, ErrInput) {
			t.Errorf("more entries than allowed: %v", err)
		}
		b.opts.MaxEntries = 100
	})
}

func TestPOSIXACL(t *testing.T) {
	acl := []byte{2, 0, 0, 0}
	for _, e := range [][3]uint32{{1, 7, 0xffffffff}, {2, 6, 1000}, {4, 5, 0xffffffff}, {0x10, 7, 0xffffffff}, {0x20, 4, 0xffffffff}} {
		acl = binary.LittleEndian.AppendUint16(acl, uint16(e[0]))
		acl = binary.LittleEndian.AppendUint16(acl, uint16(e[1]))
		acl = binary.LittleEndian.AppendUint32(acl, e[2])
	}
	image, _ := build(t, Options{MinSize: GroupSize}, func(b *Builder) {
		a := attr(0o644)
		a.Xattrs = map[string]string{"system.posix_acl_access": string(acl)}
		must(t)(b.File("f", a, 0, strings.NewReader("")))
	})
	if got := debugfs(t, image, "ea_get -x /f system.posix_acl_access"); !strings.Contains(got, "01 00 00 00 01 00 07 00") &&
		!strings.Contains(got, "02 00 00 00 01 00 07 00") {
		t.Errorf("ACL: %s", got)
	}
}
