package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"drover"
)

// errStall is the cause of a download that was ended because nothing came any more.
var errStall = errors.New("no data came")

// meter watches the bytes of an image come in: it tells the progress, and ends what stands still.
type meter struct {
	src   *source
	tell  func(string)
	stall time.Duration
	timer *time.Timer

	layer int
	start time.Time
	told  time.Time
	bytes int64
}

// tellEvery is how often progress is told.
const tellEvery = 500 * time.Millisecond

func newMeter(ctx context.Context, src *source, stall time.Duration, tell func(string)) *meter {
	m := &meter{src: src, tell: tell, stall: stall, start: time.Now()}
	m.timer = time.AfterFunc(stall, func() {
		if ctx.Err() == nil {
			src.abort(fmt.Errorf("%w for %s", errStall, stall))
		}
	})
	return m
}

// begin says which layer is fetched from here on.
func (m *meter) begin(layer int) {
	m.layer = layer
	m.timer.Reset(m.stall)
}

func (m *meter) stop() { m.timer.Stop() }

// reader counts what is read from r. Its errors are marked with errRead.
func (m *meter) reader(r io.Reader) io.Reader { return &metered{m: m, r: r} }

type metered struct {
	m *meter
	r io.Reader
}

func (r *metered) Read(p []byte) (int, error) {
	r.m.timer.Reset(r.m.stall) // from here on we wait for the sender, not for our own disk
	n, err := r.r.Read(p)
	r.m.timer.Stop()
	r.m.count(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", errRead, err)
	}
	return n, err
}

func (m *meter) count(n int) {
	m.bytes += int64(n)
	now := time.Now()
	if now.Sub(m.told) < tellEvery {
		return
	}
	m.told = now
	total := m.src.size()
	percent := int64(100)
	if total > 0 {
		percent = m.bytes * 100 / total
	}
	rate := drover.Bytes(float64(m.bytes) / max(now.Sub(m.start).Seconds(), 0.001))
	m.tell(fmt.Sprintf("fetching %s: layer %d of %d, %s of %s (%d %%), %s/s", m.src.image, m.layer+1, len(m.src.layers),
		mib(drover.Bytes(m.bytes)), mib(drover.Bytes(total)), percent, mib(rate)))
}

func mib(n drover.Bytes) string { return fmt.Sprintf("%.1f MiB", float64(n)/float64(drover.MiB)) }
