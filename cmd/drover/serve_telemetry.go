package main

import (
	"context"
	"net"
	"time"

	"drover/fleet"
	"drover/internal/hostconf"
	"drover/oteltraces"
)

// tracesEnd bounds how long a process waits for the export of traces to end. What it cuts off is exported by the next controller.
const tracesEnd = 2 * time.Second

// newTraces is where the traces of migrations go; nil when nobody wants them.
func newTraces(ctx context.Context, p process) (exporter fleet.TraceExporter, end func(), err error) {
	if !oteltraces.Wanted(p.conf.Telemetry.OTLPEndpoint, p.getenv) {
		return nil, func() {}, nil
	}
	e, err := oteltraces.New(ctx, oteltraces.Config{Endpoint: p.conf.Telemetry.OTLPEndpoint, Version: version(), Instance: string(p.conf.ID)})
	if err != nil {
		return nil, nil, err
	}
	p.log.Info("traces of migrations are exported", "endpoint", p.conf.Telemetry.OTLPEndpoint)
	return e, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tracesEnd)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			p.log.Debug("the export of traces did not end well", "err", err)
		}
	}, nil
}

// openMetrics reports whether everybody may read metrics who can reach the API's address.
func openMetrics(conf *hostconf.Config, listens net.Addr) bool {
	switch conf.Telemetry.Metrics {
	case hostconf.MetricsOpen:
		return true
	case hostconf.MetricsOperators:
		return false
	}
	tcp, ok := listens.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
