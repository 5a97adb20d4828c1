package nbd

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
)

// Our client against other people's servers.

// daemon runs a server program until the end of the test, and waits until it listens.
func daemon(t *testing.T, network, address, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait() //nolint:errcheck // killed below
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil && !t.Failed() {
			t.Errorf("%s has ended by itself: %v\n%s", name, err, log.String())
		}
		<-ended
	})
	eventually(t, name+" listens", func() bool {
		conn, err := net.Dial(network, address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

// eventually polls a condition, within bounds.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			tb.Fatalf("waited %v until %s", patience, what)
		}
	}
}

// freePort returns an address that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// image writes the sample to a sparse file.
func image(t *testing.T) (path string, content []byte) {
	t.Helper()
	content = sample(4 << 20) // whole blocks: qemu-nbd would round up
	path = filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := 0; off < len(content); off += block {
		if p := content[off : off+block]; len(bytes.Trim(p, "\x00")) != 0 {
			if _, err := f.WriteAt(p, int64(off)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Truncate(int64(len(content))); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// compressing asks for what these servers have never heard of.
func compressing(cfg *ClientConfig) { cfg.Compress = true }

// exercise reads everything, describes it, changes it in every way, and compares with the file behind the server.
func exercise(t *testing.T, c *Client, path string, content []byte) {
	t.Helper()
	ctx := context.Background()
	if c.Size() != int64(len(content)) || c.ReadOnly() || !c.HasContext(ContextAllocation) || c.HasContext(ContextPresent) {
		t.Fatalf("size %d, read-only %v, contexts %v", c.Size(), c.ReadOnly(), c.export.contexts)
	}
	got := bytes.Repeat([]byte{0xee}, len(content))
	if err := c.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("reading everything: %v, equal %v", err, bytes.Equal(got, content))
	}
	holes := int64(0)
	for off := int64(0); off < c.Size(); {
		extents, err := c.Extents(ctx, ContextAllocation, off, c.Size()-off)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range extents {
			if e.Flags&FlagZero != 0 {
				holes += e.Length
				if len(bytes.Trim(content[off:off+e.Length], "\x00")) != 0 {
					t.Fatalf("%d bytes at %d are said to be zeroes", e.Length, off)
				}
			}
			off += e.Length
		}
	}
	if holes < 2<<20 {
		t.Errorf("the map shows %d bytes of zeroes", holes)
	}
	fill(content[1<<20:3<<20], 5)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(c.WriteAt(ctx, content[1<<20:2<<20], 1<<20, false))
	check(c.WriteAt(ctx, content[2<<20:3<<20], 2<<20, true))
	clear(content[1<<20 : 1<<20+64<<10])
	check(c.Zero(ctx, 1<<20, 32<<10, false, true))
	check(c.Zero(ctx, 1<<20+32<<10, 32<<10, true, false))
	clear(content[2<<20 : 2<<20+64<<10])
	check(c.Discard(ctx, 2<<20, 64<<10, false)) // both of them punch holes
	check(c.Flush(ctx))
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
		t.Fatalf("the file differs from what was written (%v)", err)
	}
	wantCode(t, c.ReadAt(ctx, got[:4096], c.Size()-512), drover.Invalid)
	_, err := c.Extents(ctx, "no:such", 0, 4096)
	wantCode(t, err, drover.Precondition)
}

func TestClientAgainstQemuNbd(t *testing.T) {
	qemuNbd := tool(t, "qemu-nbd", "qemu-utils")
	path, content := image(t)
	socket := filepath.Join(t.TempDir(), "s")
	daemon(t, "unix", socket, qemuNbd, "-f", "raw", "-k", socket, "-x", "disk", "-e", "4", "-t", "--discard=unmap", path)
	exercise(t, dial(t, "unix", socket, "disk", compressing), path, content)
	_, err := Dial(context.Background(), ClientConfig{Network: "unix", Address: socket, Export: "other"})
	wantCode(t, err, drover.NotFound)
}

func TestClientAgainstQemuNbdWithTLS(t *testing.T) {
	qemuNbd := tool(t, "qemu-nbd", "qemu-utils")
	path, content := image(t)
	ca, address := newAuthority(t, "ca"), freePort(t)
	daemon(t, "tcp", address, qemuNbd, "-f", "raw", "-b", "127.0.0.1", "-p", address[strings.LastIndex(address, ":")+1:], "-x", "disk", "-e", "4", "-t",
		"--discard=unmap", "--object", "tls-creds-x509,id=tls0,endpoint=server,verify-peer=yes,dir="+ca.directory(ca, "server"), "--tls-creds", "tls0", path)
	exercise(t, dial(t, "tcp", address, "disk", func(cfg *ClientConfig) { cfg.TLS = ca.client("h2") }), path, content)
	_, err := Dial(context.Background(), ClientConfig{Network: "tcp", Address: address, Export: "disk"})
	wantCode(t, err, drover.Denied)
}

func TestClientAgainstNbdkit(t *testing.T) {
	nbdkit := tool(t, "nbdkit", "nbdkit")
	path, content := image(t)
	socket := filepath.Join(t.TempDir(), "s")
	daemon(t, "unix", socket, nbdkit, "-f", "-U", socket, "file", path)
	exercise(t, dial(t, "unix", socket, "", compressing), path, content)
}

func TestClientAgainstNbdkitWithTLS(t *testing.T) {
	nbdkit := tool(t, "nbdkit", "nbdkit")
	path, content := image(t)
	ca, address := newAuthority(t, "ca"), freePort(t)
	daemon(t, "tcp", address, nbdkit, "-f", "-i", "127.0.0.1", "-p", address[strings.LastIndex(address, ":")+1:], "--tls=require",
		"--tls-certificates="+ca.directory(ca, "server"), "--tls-verify-peer", "file", path)
	exercise(t, dial(t, "tcp", address, "", func(cfg *ClientConfig) { cfg.TLS = ca.client("h2") }), path, content)
	other := newAuthority(t, "other").client("h2")
	other.RootCAs = ca.pool()
	_, err := Dial(context.Background(), ClientConfig{Network: "tcp", Address: address, TLS: other})
	if err == nil {
		t.Fatal("connected with another authority's certificate")
	}
}

// A server without structured replies, FUA, trim and write zeroes: everything must work by other means.
func TestClientAgainstAPlainServer(t *testing.T) {
	nbdkit := tool(t, "nbdkit", "nbdkit")
	path, content := image(t)
	socket := filepath.Join(t.TempDir(), "s")
	daemon(t, "unix", socket, nbdkit, "-f", "--no-sr", "-U", socket, "--filter=nozero", "--filter=fua", "file", path, "zeromode=none")
	c := dial(t, "unix", socket, "", compressing)
	ctx := context.Background()
	if c.HasContext(ContextAllocation) || c.export.structured || c.export.can(flagSendFUA) || c.export.can(flagSendWriteZeroes) {
		t.Fatalf("the server is not plain: %+v", c.export)
	}
	if err := c.WriteAt(ctx, content[:5000], 1<<20+1, true); err != nil {
		t.Fatal(err)
	}
	if err := c.Zero(ctx, 100, 2<<20-100, false, true); err != nil {
		t.Fatal(err)
	}
	got := bytes.Repeat([]byte{0xee}, len(content))
	clear(content[100 : 2<<20])
	if err := c.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("reading everything: %v, equal %v", err, bytes.Equal(got, content))
	}
}
