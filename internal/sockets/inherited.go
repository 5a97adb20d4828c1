package sockets

import (
	"net"
	"os"
	"path/filepath"
	"strconv"

	"drover"
)

// firstInherited is the descriptor of the first of the listeners that a process is started with (sd_listen_fds(3)).
const firstInherited = 3

// Env tells a process that is started with one listener, as its descriptor 3, of it. The process number is left out: who starts it does not know it.
func Env(name string) []string {
	return []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=" + name, "LISTEN_PID="}
}

// Inherited is the listener that this process was started with; nil when there is none. It may be called once.
func Inherited(getenv func(string) string) (net.Listener, error) {
	count, pid := getenv("LISTEN_FDS"), getenv("LISTEN_PID")
	if count == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	if count != "1" {
		return nil, drover.Errorf(drover.Invalid, "LISTEN_FDS is %q; one listener is expected", count)
	}
	f := os.NewFile(firstInherited, "inherited listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot take over the listener that this process was started with: %w", err)
	}
	return l, nil
}

// Private checks that an inherited listener is the unix socket with the path, and that nobody but its owner may connect to it. found tells whether
// the path leads to a socket still: it may have been removed, or been replaced by a process that is dead.
func Private(l net.Listener, path string) (found bool, err error) {
	if at := l.Addr(); at.Network() != "unix" || filepath.Clean(at.String()) != path {
		return false, drover.Errorf(drover.Invalid, "the listener that this process was started with is %s %s, not the unix socket %s", at.Network(), at, path).
			WithHint("in a systemd socket unit: ListenStream=%s", path)
	}
	if found, err = held(path); err != nil || !found {
		return false, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return false, drover.Errorf(drover.Internal, "cannot tell who may connect to the socket that this process was started with: %w", err)
	}
	if open := st.Mode().Perm() &^ 0o700; open != 0 {
		return false, drover.Errorf(drover.Invalid, "others than its owner may connect to the socket %s that this process was started with: its mode is %#o", path, st.Mode().Perm()).
			WithHint("in a systemd socket unit: SocketMode=0600")
	}
	return true, nil
}
