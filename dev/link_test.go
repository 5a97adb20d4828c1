package dev

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"drover"
)

func TestCutAndHeal(t *testing.T) {
	f := namespacesOnly(t)
	if err := f.Cut(t.Context(), "h1"); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, f, "h2", "h3")
	if h := host(t, f, "h1"); h.Link != "cut" || h.State != "up" {
		t.Errorf("h1: %+v", h)
	}
	if err := f.Heal(t.Context(), "h1"); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, f, "h1", "h2", "h3")

	// A cut outlives a power cut, and one direction is enough.
	if err := f.SetLink(t.Context(), "h2", Link{CutOut: true}); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, f, "h1", "h3")
	if err := f.Kill(t.Context(), "h2"); err != nil {
		t.Fatal(err)
	}
	if err := f.Start(t.Context(), "h2"); err != nil {
		t.Fatal(err)
	}
	if h := host(t, f, "h2"); h.Link != "sends nothing" {
		t.Errorf("h2: %+v", h)
	}
	if err := f.Heal(t.Context(), "h2"); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, f, "h1", "h2", "h3")
}

func TestSlowLinkIsSlow(t *testing.T) {
	f := namespacesOnly(t)
	const rate, size = 2 * drover.MiB, 6 * drover.MiB
	const delay = 100 * time.Millisecond
	if err := f.Slow(t.Context(), "h1", rate, delay); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, f, "h1", "h2", "h3")
	// From inside h1 through the fleet's proxy to a server outside: both directions of h1's link are passed.
	body := bytes.Repeat([]byte("0123456789abcdef"), int(size)/16)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(body) })}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	defer server.Close()
	var out bytes.Buffer
	began := time.Now()
	fetchInside(t, f, "h1", l.Addr().String(), &out)
	took := time.Since(began)
	if !bytes.Equal(out.Bytes(), body) {
		t.Fatalf("%d bytes arrived, or wrong ones", out.Len())
	}
	// It can be slower than promised on a busy machine, never faster.
	if least := time.Duration(float64(size)/float64(rate)*float64(time.Second)) + 2*delay; took < least*9/10 {
		t.Errorf("%d bytes at %d bytes/s and %s of delay took %s, which is too fast", size, rate, delay, took)
	}
	if h := host(t, f, "h1"); h.Rate != rate || time.Duration(h.Delay) != delay {
		t.Errorf("h1: %+v", h)
	}
	if err := f.Slow(t.Context(), "h1", 1, 0); !drover.Is(err, drover.Invalid) {
		t.Errorf("a rate of one byte: %v", err)
	}
}

// fetchInside gets a URL from inside a host through the fleet's proxy, by hand, because a fleet has no tool that does.
func fetchInside(t *testing.T, f *Fleet, id drover.HostID, addr string, out *bytes.Buffer) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("exec 3<>/dev/tcp/10.98.0.%d/%d; printf 'GET http://%s/ HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3", gatewayNumber, egressPort, addr)
	go func() {
		defer writer.Close()
		if code, err := f.Exec(t.Context(), id, []string{"/bin/bash", "-c", script}, in, writer, os.Stderr); err != nil || code != 0 {
			t.Errorf("fetch: exit code %d, %v", code, err)
		}
	}()
	answer, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	_, content, ok := bytes.Cut(answer, []byte("\r\n\r\n"))
	if !ok {
		t.Fatalf("answer: %.200q", answer)
	}
	out.Write(content)
}

func namespacesOnly(t *testing.T) *Fleet {
	t.Helper()
	if _, _, err := chooseMode(t.Context(), os.Args[0], ModeNamespaces); err != nil {
		t.Skip(err)
	}
	return bringUp(t, shortDir(t), ModeNamespaces)
}

func TestLinksOfALoopbackFleetCannotBeCut(t *testing.T) {
	f := bringUp(t, shortDir(t), ModeLoopback)
	for name, err := range map[string]error{"cut": f.Cut(t.Context(), "h1"), "slow": f.Slow(t.Context(), "h1", drover.MiB, 0)} {
		if !drover.Is(err, drover.Precondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
