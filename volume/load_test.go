package volume

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"drover"
)

// BenchmarkMemory reports the largest size of a daemon's process with ten volumes of 16 GiB that are hydrated and written at the same
// time. Run it without the race detector.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		ca := newCA(b)
		h1 := newHost(b, ca, "h1")
		p := newProcessHost(b, prepareHost(b, ca, "h2"))
		p.start()
		ctx, cancel := context.WithCancel(b.Context())
		var guests sync.WaitGroup
		for i := range 10 {
			id := drover.LayerID(fmt.Sprintf("vol_%d", i))
			h1.create(id, 16*drover.GiB)
			c := h1.open(id, 1)
			for off := int64(0); off < 32*mib; off += mib {
				noErr(b, c.WriteAt(b.Context(), pattern(uint64(off), mib), off*37, false))
			}
			p.clone(id+".m", h1.export(id, "h2"), "")
			g := p.open(id+".m", 2)
			noErr(b, p.Hydrate(b.Context(), id+".m", 0))
			guests.Go(func() {
				for n := int64(0); ctx.Err() == nil; n++ {
					if g.WriteAt(ctx, pattern(uint64(n), 256<<10), n%4096*mib, n%16 == 0) != nil {
						return
					}
					if g.ReadAt(ctx, make([]byte, 256<<10), n*7919%4096*mib) != nil {
						return
					}
				}
			})
		}
		for i := range 10 {
			p.hydrated(drover.LayerID(fmt.Sprintf("vol_%d.m", i)))
		}
		cancel()
		guests.Wait()
		status := must[[]byte](b)(os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)))
		for line := range strings.Lines(string(status)) {
			var kib float64
			if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kib); err == nil {
				b.ReportMetric(kib/1024, "MiB-peak")
			}
		}
	}
}
