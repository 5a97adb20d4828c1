package nbd

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
)

// localPair returns a localConn and its client.
func localPair(t *testing.T) (*localConn, net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newLocalConn(accepted.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	return c, client
}

func TestLocalConnWritesManyPartsWhole(t *testing.T) {
	c, client := localPair(t)
	var parts [][]byte
	want := []byte{}
	for i := range 3 * maxIovecs { // more than one writev takes, and than the socket's buffer holds
		p := make([]byte, i%700)
		fill(p, byte(i))
		parts, want = append(parts, p), append(want, p...)
	}
	sent := make(chan error, 1)
	go func() { sent <- (&localSender{conn: c}).send(parts) }()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(client, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("something else arrived than was sent")
	}
	if err := await(t, sent, "the end of the writing"); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestCloseOfALocalConnEndsWhatWaits(t *testing.T) {
	c, client := localPair(t)
	read, written := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	full := make(chan struct{})
	go func() {
		_, err := c.Write(make([]byte, 1<<20))
		close(full)
		for err == nil { // until the buffer is full, and Close comes
			_, err = c.Write(make([]byte, 1<<20))
		}
		written <- err
	}()
	// A MiB is more than the buffer holds: when some of it can be read, the writer is in its call.
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := await(t, read, "the end of the reading"); err == nil {
		t.Error("a read of a closed connection succeeded")
	}
	await(t, full, "the end of the first write")
	if err := await(t, written, "the end of the writing"); err == nil {
		t.Error("a write to a closed connection succeeded")
	}
	if _, err := io.Copy(io.Discard, client); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("the client sees %v, not the end", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read afterwards: %v", err)
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close: %v", err)
	}
	if c.users != 0 || !c.hungUp() {
		t.Errorf("%d users are left; hung up: %v", c.users, c.hungUp())
	}
}

func TestThreadsAreBoundedAndGivenBack(t *testing.T) {
	s := newShelf()
	s.add("disk", newMemory(t, 4096), 4096, false)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(ServerConfig{Opener: s, Threads: 1})
	served := make(chan error, 1)
	go func() { served <- server.Serve(t.Context(), l) }()
	for range 3 {
		a, b := dial(t, "unix", l.Addr().String(), "disk", nil), dial(t, "unix", l.Addr().String(), "disk", nil)
		for _, c := range []*Client{a, b} {
			if err := c.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
				t.Error(err)
			}
		}
		server.mu.Lock()
		if server.threads != 1 {
			t.Errorf("%d threads are taken, 1 is allowed", server.threads)
		}
		server.mu.Unlock()
		for _, c := range []*Client{a, b} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			await(t, s.closed, "the end of the session")
		}
		eventually(t, "the thread to be given back", func() bool {
			server.mu.Lock()
			defer server.mu.Unlock()
			return server.threads == 0
		})
	}
}
