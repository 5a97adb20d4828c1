package main

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover"
)

func TestParseStat(t *testing.T) {
	now := time.Unix(1000, 0)
	line := "42 (a) (b) S 1 42 42 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 1 0 9000 1000000 25 18446744073709551615 0 0"
	got, ok := parseStat([]byte(line), now, 100)
	want := drover.Process{Command: "a) (b", CPU: 2000, RSS: drover.Bytes(25 * os.Getpagesize()), RTime: 10, STime: 990}
	if !ok || !cmp.Equal(got, want) {
		t.Errorf("%v: %s", ok, cmp.Diff(want, got))
	}
	for name, bad := range map[string]string{"a kernel thread": strings.Replace(line, "4194304", "2129984", 1), "half a line": "42 (a) S 1", "nothing": ""} {
		if _, ok := parseStat([]byte(bad), now, 100); ok {
			t.Errorf("%s is a process", name)
		}
	}
}

func TestParseSocket(t *testing.T) {
	for in, want := range map[string]string{"0100007F:1F90": "127.0.0.1:8080", "00000000000000000000000000000000:0016": "[::]:22",
		"0000AAFD000000000000000042000000:0050": "[fdaa::42]:80", "x:1": "", "0100007F": "", "01:1": ""} {
		if got, ok := parseSocket(in); got != want || ok != (want != "") {
			t.Errorf("%s is %q, %v; want %q", in, got, ok, want)
		}
	}
}

// TestListProcesses looks at this very process.
func TestListProcesses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	list, err := listProcesses("/proc", time.Now(), uptime())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(p drover.Process) bool { return p.PID == os.Getpid() })
	if i < 0 {
		t.Fatal("not in the list")
	}
	p := list[i]
	if p.Directory != dir || p.RSS == 0 || !strings.Contains(p.Command, os.Args[0]) || p.RTime > 3600 ||
		!slices.Contains(p.ListenSockets, drover.ListenSocket{Proto: "tcp", Address: l.Addr().String()}) {
		t.Errorf("%+v", p)
	}
}

func TestRequestHead(t *testing.T) {
	head, err := requestHead("HEAD", "/up", "[::1]:80", []drover.HTTPHeader{{Name: "host", Values: []string{"example.com"}}, {Name: "X", Values: []string{"1", "2"}}})
	want := "HEAD /up HTTP/1.0\r\nhost: example.com\r\nX: 1\r\nX: 2\r\nUser-Agent: drover-check\r\nConnection: close\r\n\r\n"
	if err != nil || string(head) != want {
		t.Errorf("%v, %q", err, head)
	}
	if _, err := requestHead("GET", "/", "a", []drover.HTTPHeader{{Name: "X", Values: []string{"1\r\nY: 2"}}}); err == nil {
		t.Error("a header with a line end was taken")
	}
}
