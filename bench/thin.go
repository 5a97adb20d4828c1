package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/time/rate"

	"drover"
	"drover/internal/hostconf"
)

// measureCompression hydrates a layer that compresses (it holds a program) over a link of a tenth of a gigabit per second, and over one as fast
// as this machine, from one daemon to two: one takes compressed replies, the other, the peer, does not.
func measureCompression(ctx context.Context, s setup) (results []result, err error) {
	const size = 256 * drover.MiB
	daemons := make(map[string]*daemon)
	for _, id := range []string{"a", "b", "c"} {
		d, err := startDaemon(ctx, s, id, func(conf *hostconf.Config) {
			if id == "c" {
				conf.LinkCompression = hostconf.CompressionOff
			}
		})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, d.stop()) }()
		daemons[id] = d
	}
	raw := filepath.Join(s.dir, "raw")
	if err := writeProgram(raw, s.drover, size); err != nil {
		return nil, err
	}
	export, err := daemons["a"].offer(ctx, "vol_bench", raw, size, "b")
	if err != nil {
		return nil, err
	}
	if err := daemons["a"].Export(ctx, "vol_bench", "c"); err != nil {
		return nil, err
	}
	thin, err := startThinLink(export.Address, 12500000)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, thin.close()) }()
	for _, link := range []struct{ name, address string }{{"compress.thin", thin.address()}, {"compress.fast", export.Address}} {
		name, over := link.name, *export
		over.Address = link.address
		speeds, wires := make(map[string][]float64), make(map[string][]float64)
		for run := range s.runs {
			for i := range 2 {
				id := []string{"b", "c"}[(i+run)%2] // another one first in each run
				status, took, err := daemons[id].hydrate(ctx, drover.LayerID(fmt.Sprintf("vol_bench.%s%d", name, run)), &over)
				if err != nil {
					return nil, err
				}
				speeds[id] = append(speeds[id], mibPerSecond(size, took))
				wires[id] = append(wires[id], float64(status.Hydration.Wire))
			}
			fmt.Fprintf(s.log, "run %d: %s: %.1f MiB/s with compression, %.1f without\n", run+1, name, speeds["b"][run], speeds["c"][run])
		}
		results = append(results,
			compare(name+".speed", "MiB/s", "higher", "the same uncompressed", speeds["b"], speeds["c"]),
			compare(name+".bytes", "B", "lower", "the same uncompressed", wires["b"], wires["c"]))
	}
	return results, nil
}

// writeProgram fills a file with a program's bytes, again and again: what a root disk holds, to a compressor with a small window.
func writeProgram(path, program string, size drover.Bytes) (err error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for left := int64(size); left > 0; {
		n, err := io.CopyN(f, bytes.NewReader(content), min(left, int64(len(content))))
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// thinLink passes connections on to an address, and what comes back at a limited rate.
type thinLink struct {
	listener net.Listener
	to       string
	limit    *rate.Limiter
	running  sync.WaitGroup
	ctx      context.Context
	cancel   context.CancelFunc
}

// thinPiece is how much passes at once.
const thinPiece = 64 << 10

func startThinLink(to string, bytesPerSecond int) (*thinLink, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &thinLink{listener: listener, to: to, limit: rate.NewLimiter(rate.Limit(bytesPerSecond), thinPiece)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.running.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return // closed
			}
			l.running.Go(func() { l.serve(near) })
		}
	})
	return l, nil
}

func (l *thinLink) address() string { return l.listener.Addr().String() }

// serve carries one connection until one of its ends closes it.
func (l *thinLink) serve(near net.Conn) {
	far, err := net.Dial("tcp", l.to)
	if err != nil {
		near.Close() //nolint:errcheck // the client sees the end
		return
	}
	end := sync.OnceFunc(func() {
		near.Close() //nolint:errcheck // it may be closed already
		far.Close()  //nolint:errcheck // the same
	})
	defer context.AfterFunc(l.ctx, end)()
	l.running.Go(func() {
		defer end()
		io.Copy(far, near) //nolint:errcheck // the end of the connection, either way
	})
	defer end()
	buf := make([]byte, thinPiece)
	for {
		n, err := far.Read(buf)
		if err != nil || l.limit.WaitN(l.ctx, n) != nil {
			return
		}
		if _, err := near.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (l *thinLink) close() error {
	l.cancel()
	err := l.listener.Close()
	l.running.Wait()
	return err
}
