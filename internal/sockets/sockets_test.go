package sockets

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"drover"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// path is where a socket may be made: a test's own directory may have too long a name.
func path(t *testing.T) string {
	t.Helper()
	dir := must[string](t)(os.MkdirTemp("", "so"))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "a.sock")
}

func TestASocketIsItsOwnersAndReplacesADeadOne(t *testing.T) {
	at := path(t)
	dead := must[*net.UnixListener](t)(Listen(at))
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := net.Dial("unix", at); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("somebody has the dead socket: %v", err)
	}
	defer must[*net.UnixListener](t)(Listen(at)).Close()
	if st := must[os.FileInfo](t)(os.Stat(at)); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	must[net.Conn](t)(net.Dial("unix", at)).Close()
}

func TestAPathThatIsTooLongIsTold(t *testing.T) {
	at := path(t)
	longest := at + strings.Repeat("x", maxPath-len(at))
	must[*net.UnixListener](t)(Listen(longest)).Close()
	if _, err := Listen(longest + "x"); !drover.Is(err, drover.Invalid) {
		t.Errorf("a path of %d bytes: %v", maxPath+1, err)
	}
}

// serve takes a held socket over as the process does that it is given to.
func serve(t *testing.T, h *Held) net.Listener {
	t.Helper()
	l := must[net.Listener](t)(net.FileListener(must[*os.File](t)(h.File())))
	t.Cleanup(func() { l.Close() })
	return l
}

// greeted fails unless the listener serves the client next.
func greeted(t *testing.T, l net.Listener, client net.Conn) {
	t.Helper()
	server := must[net.Conn](t)(l.Accept())
	must[int](t)(server.Write([]byte("hello")))
	server.Close()
	if said := must[[]byte](t)(io.ReadAll(client)); string(said) != "hello" {
		t.Errorf("the client was told %q", said)
	}
	client.Close()
}

func TestAHeldSocketOutlivesThoseWhoServeIt(t *testing.T) {
	at := path(t)
	h := Hold(at)
	defer h.Close()
	first := serve(t, h)
	waits := must[net.Conn](t)(net.Dial("unix", at)) // not served before its end
	first.Close()
	comes := must[net.Conn](t)(net.Dial("unix", at))
	second := serve(t, h)
	greeted(t, second, waits)
	greeted(t, second, comes) // and nobody between, who would have asked whether the socket is there
}

func TestAHeldSocketIsMadeAnew(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, at string){
		"removed": func(t *testing.T, at string) { os.Remove(at) },
		"replaced": func(t *testing.T, at string) {
			l := must[*net.UnixListener](t)(Listen(at))
			l.SetUnlinkOnClose(false)
			l.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			at := path(t)
			h := Hold(at)
			defer h.Close()
			serve(t, h).Close()
			waits := must[net.Conn](t)(net.Dial("unix", at))
			spoil(t, at)
			l := serve(t, h)
			if _, err := waits.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("who waited at the old socket was told %v", err)
			}
			greeted(t, l, must[net.Conn](t)(net.Dial("unix", at)))
		})
	}
}

func TestPrivateTellsWhatIsWrong(t *testing.T) {
	at := path(t)
	l := must[*net.UnixListener](t)(Listen(at))
	defer l.Close()
	tcp := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer tcp.Close()
	for _, c := range []struct {
		what  string
		l     net.Listener
		path  string
		mode  os.FileMode
		found bool
		says  string
	}{
		{"as it should be", l, at, 0o600, true, ""},
		{"no unix socket", tcp, at, 0o600, false, "not the unix socket " + at},
		{"another path", l, at + "x", 0o600, false, "not the unix socket " + at + "x"},
		{"open to all", l, at, 0o666, false, "0666"},
		{"open to a group", l, at, 0o660, false, "0660"},
	} {
		if err := os.Chmod(at, c.mode); err != nil {
			t.Fatal(err)
		}
		found, err := Private(c.l, c.path)
		if found != c.found || (c.says == "") != (err == nil) {
			t.Errorf("%s: %v, %v", c.what, found, err)
		}
		if err != nil && (!drover.Is(err, drover.Invalid) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v should say %q", c.what, err, c.says)
		}
	}
	os.Remove(at)
	if found, err := Private(l, at); found || err != nil {
		t.Errorf("removed: %v, %v", found, err)
	}
}

func TestOnlyWhatIsMeantForThisProcessIsInherited(t *testing.T) {
	for _, env := range []map[string]string{{}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}} {
		if l, err := Inherited(func(name string) string { return env[name] }); l != nil || err != nil {
			t.Errorf("%v: %v, %v", env, l, err)
		}
	}
	if _, err := Inherited(func(name string) string { return map[string]string{"LISTEN_FDS": "2"}[name] }); !drover.Is(err, drover.Invalid) {
		t.Errorf("two listeners: %v", err)
	}
}
