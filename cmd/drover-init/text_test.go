package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"drover"
	"drover/guest"
)

func TestCutLine(t *testing.T) {
	long := strings.Repeat("x", guest.MaxLogText)
	for name, c := range map[string]struct {
		in         string
		end        bool
		text, rest string
		ok         bool
	}{
		"a line":                  {"one\ntwo", false, "one", "two", true},
		"an empty line":           {"\nx", false, "", "x", true},
		"no whole line":           {"one", false, "", "one", false},
		"the end":                 {"one", true, "one", "", true},
		"nothing":                 {"", true, "", "", false},
		"the longest":             {long + "\n", false, long, "", true},
		"too long":                {long + "y\n", false, long, "y\n", true},
		"just filled":             {long, false, "", long, false},
		"a character at the cut":  {long[1:] + "äb", false, long[1:], "äb", true},
		"a long one at the cut":   {long[3:] + "😀b", false, long[3:], "😀b", true},
		"no character at the cut": {long[1:] + "\xff\xffb", false, long[1:] + "\xff", "\xffb", true},
		"halves without starts":   {long[4:] + "\x80\x80\x80\x80\x80\x80", false, long[4:] + "\x80\x80\x80\x80", "\x80\x80", true},
	} {
		text, rest, ok := cutLine([]byte(c.in), c.end)
		if string(text) != c.text || string(rest) != c.rest || ok != c.ok {
			t.Errorf("%s: %.20q (%d) %.20q (%d) %v", name, text, len(text), rest, len(rest), ok)
		}
	}
}

// FuzzRecord holds that a log line is JSON with the text that it was made of, whatever that is.
func FuzzRecord(f *testing.F) {
	f.Add([]byte("a\"\\\x00\x7f\xff\xc3\xa4\u2028"))
	f.Fuzz(func(t *testing.T, text []byte) {
		line := appendRecord(nil, 42, source{"stdout", "web\""}, text)
		var got struct {
			T int64
			S string
			M string
			P string
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want := strings.ToValidUTF8(string(text), "\ufffd")
		if !utf8.Valid(text) {
			// Each wrong byte is one U+FFFD here, and a run of them is one there.
			got.M = strings.ReplaceAll(got.M, "\ufffd", "")
			want = strings.ReplaceAll(want, "\ufffd", "")
		}
		if got.M != want || got.P != "web\"" || got.T != 42 || got.S != "stdout" || line[len(line)-1] != '\n' {
			t.Fatalf("%q became %q", text, line)
		}
	})
}

func TestParseIdentity(t *testing.T) {
	passwd := [][]string{{"root", "x", "0", "0", "", "/root", ""}, {"ann", "x", "7", "8", "", "/home/ann", ""}, {"broken"}}
	group := [][]string{{"root", "x", "0", ""}, {"eight", "x", "8", ""}, {"more", "x", "9", "bob,ann"}, {"bad", "x", "nine", "ann"}}
	for text, want := range map[string]identity{
		"":          {home: "/root"},
		"root":      {home: "/root"},
		"ann":       {uid: 7, gid: 8, groups: []uint32{9}, home: "/home/ann"},
		"7":         {uid: 7, gid: 8, groups: []uint32{9}, home: "/home/ann"},
		"ann:more":  {uid: 7, gid: 9, home: "/home/ann"},
		"ann:1":     {uid: 7, gid: 1, home: "/home/ann"},
		"100":       {uid: 100, home: "/"},
		"100:200":   {uid: 100, gid: 200, home: "/"},
		"100:eight": {uid: 100, gid: 8, home: "/"},
		":eight":    {gid: 8, home: "/root"},
	} {
		got, err := parseIdentity(text, passwd, group)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(identity{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
	for _, text := range []string{"nobody", "ann:nogroup", "-1", "4294967296", "7:-1"} {
		if id, err := parseIdentity(text, passwd, group); err == nil {
			t.Errorf("%q: %+v", text, id)
		}
	}
	if id, err := parseIdentity("0", nil, nil); err != nil || id.home != "/root" {
		t.Errorf("an image without /etc/passwd: %+v %v", id, err)
	}
}

func TestMergeEnvKeepsTheLast(t *testing.T) {
	got := mergeEnv([]string{"A=1", "B=2", "A=3", "=x", "none", "C="})
	if diff := cmp.Diff([]string{"A=3", "B=2", "C="}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestFindProgram(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"a/run": 0o755, "a/text": 0o644, "b/text": 0o755, "b/only": 0o644} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, mode)); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=" + dir + "/a:" + dir + "/b:c"}
	for name, want := range map[string]string{"run": "/a/run", "text": "/b/text", "./a/run": "/a/run", dir + "/a/run": "/a/run"} {
		if got, err := findProgram(name, dir, env); err != nil || got != dir+want {
			t.Errorf("%s: %s %v", name, got, err)
		}
	}
	for name, want := range map[string]int{"none": 127, "": 127, "./none": 127, dir + "/a/run/x": 127, "only": 126, "./a": 126,
		"./a/text": 126} {
		if _, err := findProgram(name, dir, env); err == nil || exitCodeOf(err) != want {
			t.Errorf("%s: %v (%d)", name, err, exitCodeOf(err))
		}
	}
}

func TestDiskName(t *testing.T) {
	for n, want := range map[int]string{0: "vda", 2: "vdc", 25: "vdz", 26: "vdaa", 27: "vdab", 52: "vdba"} {
		if got := diskName(n); got != want {
			t.Errorf("disk %d is %s, not %s", n, got, want)
		}
	}
}

func TestInspectContent(t *testing.T) {
	const size = 8 << 20
	for name, c := range map[string]struct {
		at    int
		data  string
		kind  content
		looks string
	}{
		"blank":              {0, "", contentBlank, ""},
		"ext4":               {extMagicAt, "\x53\xef", contentExt4, ""},
		"xfs":                {0, "XFSB", contentOther, "an XFS file system"},
		"btrfs":              {0x10040, "_BHRfS_M", contentOther, "a Btrfs file system"},
		"swap":               {0xff6, "SWAPSPACE2", contentOther, "swap space"},
		"partitions":         {0x1fe, "\x55\xaa", contentOther, "a partition table or boot sector"},
		"one bit":            {edge - 1, "\x01", contentOther, "unknown data"},
		"one bit at the end": {size - 1, "\x01", contentOther, "unknown data at its end"},
		"in the middle":      {size / 2, "\x01", contentBlank, ""},
	} {
		disk := make([]byte, size)
		copy(disk[c.at:], c.data)
		kind, looks, err := inspectContent(strings.NewReader(string(disk)), size)
		if err != nil || kind != c.kind || looks != c.looks {
			t.Errorf("%s: %v %q %v", name, kind, looks, err)
		}
	}
	if kind, _, err := inspectContent(strings.NewReader("\x00\x00"), 2); err != nil || kind != contentBlank {
		t.Errorf("a tiny disk: %v %v", kind, err)
	}
}

func TestHostsFile(t *testing.T) {
	got := string(hostsFile(guest.Config{Hostname: "m1", Network: guest.Network{Address: "fdaa::1"},
		Hosts: []guest.HostName{{Address: "10.0.0.1", Names: []string{"a", "b"}}}}))
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfdaa::1\tm1\n10.0.0.1\ta b\n"
	if got != want {
		t.Errorf("got %q", got)
	}
}

func TestAskHTTP(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 200 OK\r\n\r\n":        "",
		"HTTP/1.0 302 Found\r\n":         "",
		"HTTP/1.1 503 Too busy\r\n\r\n":  "503 Too busy",
		"SSH-2.0-OpenSSH\r\n":            "did not answer by HTTP",
		"":                               "gave no HTTP answer",
		"HTTP/1.1 200":                   "gave no HTTP answer",
		strings.Repeat("x", 10000) + "":  "gave no HTTP answer",
		"HTTP/1.1 yes\r\n":               "did not answer by HTTP",
		"HTTP/1.1 99999999999999 x\r\n ": "99999999999999 x",
	} {
		ours, theirs := net.Pipe()
		asked := make(chan string, 1)
		go func() {
			line, err := bufio.NewReader(theirs).ReadString('\n')
			if err != nil {
				line = err.Error()
			}
			asked <- line
			io.WriteString(theirs, answer) // the other side stops reading when it has seen enough
			theirs.Close()
		}()
		_, _, err := askHTTP(ours, drover.Check{Method: "head", Path: "live?x=1"}, "h:1")
		if got := <-asked; got != "HEAD /live?x=1 HTTP/1.0\r\n" {
			t.Errorf("%q was asked", got)
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v", answer, err)
		}
		if err := ours.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := askHTTP(nil, drover.Check{Path: "/a b"}, "h:1"); err == nil {
		t.Error("a path with a blank was sent")
	}
}

func TestACheckTellsTheRole(t *testing.T) {
	for answer, want := range map[string]drover.MoveRole{
		"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ndrover-role:  primary \r\n\r\nDrover-Role: replica": drover.RolePrimary,
		"HTTP/1.0 204 No Content\r\nDrover-Role: replica\r\n\r\n":                                           drover.RoleReplica,
		"HTTP/1.0 200 OK\r\nDrover-Role: boss\r\n\r\n":                                                      "",
		"HTTP/1.0 200 OK\r\n\r\nDrover-Role: replica":                                                       "",
		"HTTP/1.0 200 OK\r\nDrover-Ro":                                                                      "",
	} {
		conn := struct {
			io.Reader
			io.Writer
		}{strings.NewReader(answer), io.Discard}
		if text, role, err := askHTTP(conn, drover.Check{}, "h:1"); err != nil || role != want || !strings.HasPrefix(text, "20") {
			t.Errorf("%q: %q, %q, %v", answer, text, role, err)
		}
	}
}
