package main

import (
	"log/slog"
	"net"
	"testing"

	"drover/internal/hostconf"
)

func TestMetricsAreOpenOnLoopbackOnly(t *testing.T) {
	loopback, other, all := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv6unspecified}
	for _, c := range []struct {
		mode string
		at   net.Addr
		want bool
	}{
		{"", loopback, true}, {"auto", &net.TCPAddr{IP: net.IPv6loopback}, true}, {"", other, false}, {"", all, false}, {"", &net.UnixAddr{Name: "/x"}, false},
		{"operators", loopback, false}, {"open", other, true},
	} {
		if got := openMetrics(&hostconf.Config{Telemetry: hostconf.Telemetry{Metrics: c.mode}}, c.at); got != c.want {
			t.Errorf("%q at %v: %v", c.mode, c.at, got)
		}
	}
}

func TestTracesGoNowhereUnlessWanted(t *testing.T) {
	p := process{conf: &hostconf.Config{ID: "c1"}, log: slog.New(slog.DiscardHandler), getenv: func(string) string { return "" }}
	if e, end, err := newTraces(t.Context(), p); e != nil || err != nil {
		t.Error(e, err)
	} else {
		end()
	}
	p.conf.Telemetry.OTLPEndpoint = "http://127.0.0.1:4318"
	e, end, err := newTraces(t.Context(), p)
	if e == nil || err != nil {
		t.Fatal(e, err)
	}
	end()
}
