package volume

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"drover"
	"drover/nbd"
)

// journey is a volume that is used, restarted and moved between two hosts at random, held against a byte slice.
type journey struct {
	t     *testing.T
	r     *rand.Rand
	hosts [2]*testHost
	at    int
	layer drover.LayerID
	epoch drover.Epoch
	moves int
	conn  *nbd.Client
	model []byte
}

const journeySize = 2 * mib

func newJourney(t *testing.T, seed uint64, cipher *drover.Cipher) *journey {
	ca := newCA(t)
	j := &journey{t: t, r: rand.New(rand.NewPCG(seed, 3)), layer: "vol_a", epoch: 1, model: make([]byte, journeySize),
		hosts: [2]*testHost{newHost(t, ca, "h1"), newHost(t, ca, "h2")}}
	j.hosts[0].cipher, j.hosts[1].cipher = cipher, cipher
	j.hosts[0].create(j.layer, drover.Bytes(journeySize))
	j.conn = j.hosts[0].open(j.layer, j.epoch)
	return j
}

func (j *journey) host() *testHost { return j.hosts[j.at] }

// span picks a range: often whole blocks, sometimes not.
func (j *journey) span(most int64) (off, n int64) {
	n = 1 + j.r.Int64N(most)
	off = j.r.Int64N(journeySize - n)
	if j.r.IntN(2) == 0 {
		off = off / blockSize * blockSize
		n = min((n+blockSize-1)/blockSize*blockSize, journeySize-off)
	}
	return off, n
}

func (j *journey) step(i int) {
	t, ctx := j.t, j.t.Context()
	off, n := j.span(200 << 10)
	switch k := j.r.IntN(40); {
	case k < 14:
		p := pattern(uint64(i), n)
		noErr(t, j.conn.WriteAt(ctx, p, off, j.r.IntN(8) == 0))
		copy(j.model[off:], p)
	case k < 26:
		got := make([]byte, n)
		noErr(t, j.conn.ReadAt(ctx, got, off))
		if !bytes.Equal(got, j.model[off:off+n]) {
			t.Fatalf("step %d: read of %d bytes at %d of layer %s is wrong", i, n, off, j.layer)
		}
	case k < 29:
		noErr(t, j.conn.Discard(ctx, off, n, false))
		clear(j.model[off : off+n])
	case k < 32:
		noErr(t, j.conn.Zero(ctx, off, n, j.r.IntN(2) == 0, false))
		clear(j.model[off : off+n])
	case k < 35:
		noErr(t, j.conn.Flush(ctx))
	case k < 36:
		j.host().halt()
		j.host().start()
		j.conn = j.host().dial(exportName(j.layer, j.epoch))
	default:
		j.move()
	}
}

// move takes the volume to the other host, whether or not the last move's hydration has ended.
func (j *journey) move() {
	from, to := j.host(), j.hosts[1-j.at]
	e := from.export(j.layer, to.id)
	j.moves++
	j.layer, j.epoch, j.at = drover.LayerID(fmt.Sprintf("vol_a.m%d", j.moves)), j.epoch+1, 1-j.at
	to.clone(j.layer, e, "")
	j.conn = to.open(j.layer, j.epoch)
	if j.r.IntN(4) > 0 {
		noErr(j.t, to.Hydrate(j.t.Context(), j.layer, drover.Bytes(j.r.IntN(3))*4*drover.MiB))
	}
}

// check reads everything.
func (j *journey) check() {
	j.t.Helper()
	got := make([]byte, journeySize)
	noErr(j.t, j.conn.ReadAt(j.t.Context(), got, 0))
	if !bytes.Equal(got, j.model) {
		j.t.Fatalf("layer %s holds something else than was written", j.layer)
	}
}

// Whatever guests do while a volume moves and is hydrated, they read what they wrote.
func TestJourneysKeepEveryByte(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			var cipher *drover.Cipher
			if seed >= 3 {
				cipher = drover.NewCipher()
			}
			j := newJourney(t, seed, cipher)
			for i := range 150 {
				j.step(i)
			}
			j.check()
			noErr(t, j.host().Hydrate(t.Context(), j.layer, 0))
			if j.moves > 0 {
				j.host().hydrated(j.layer)
				j.hosts[1-j.at].halt()
			}
			j.check()
			t.Logf("%d moves", j.moves)
		})
	}
}
