package volume

import (
	"fmt"
	"testing"
	"time"

	"drover"
)

// BenchmarkHydration copies 256 MiB over TLS between two daemons in one process.
func BenchmarkHydration(b *testing.B) {
	ca := newCA(b)
	h1, h2 := newHost(b, ca, "h1"), newHost(b, ca, "h2")
	const size = 256 * mib
	h1.create("vol_a", drover.Bytes(size))
	c := h1.open("vol_a", 1)
	for off := int64(0); off < size; off += mib {
		noErr(b, c.WriteAt(b.Context(), pattern(uint64(off/mib), mib), off, false))
	}
	e := h1.export("vol_a", "h2")
	b.SetBytes(size)
	for i := 0; b.Loop(); i++ {
		id := drover.LayerID(fmt.Sprintf("vol_a.m%d", i))
		b.StopTimer()
		h2.clone(id, e, "")
		b.StartTimer()
		begun := time.Now()
		noErr(b, h2.Hydrate(b.Context(), id, 0))
		h2.hydrated(id)
		b.Logf("hydrated in %v", time.Since(begun))
		b.StopTimer()
		noErr(b, h2.Delete(b.Context(), id))
		b.StartTimer()
	}
}
