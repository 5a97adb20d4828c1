package nbd

import (
	"encoding/binary"
	"math"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"drover"
)

// contextCompressed is the metadata context with which Drover's own client says that it takes compressed data in replies to READ. It
// describes no block and stands in no list, so other clients never notice it.
const contextCompressed = "drover:zstd"

// compressedID is the number of contextCompressed on the wire. The contexts of an export are numbered from 1 on.
const compressedID = 1 << 30

// Bounds of what is compressed.
const (
	// minPacked is the shortest data that is compressed.
	minPacked = 4 << 10
	// packSample is how much of longer data is compressed first, to see whether the rest is worth it.
	packSample = 4 << 10
	// maxWindow is the zstd window: more finds little in what a volume holds, and takes memory on both sides.
	maxWindow = 256 << 10
	// retryPacked is how often compression is tried again where it does not pay: once in so many replies.
	retryPacked = 32
	// linkCheck is how long a measured rate of the link counts.
	linkCheck = 200 * time.Millisecond
	// forget is what is left of earlier experience with each new one.
	forget = 0.9
)

// worthwhile tells whether n compressed bytes are few enough for size plain ones: the other side has to unpack them too.
func worthwhile(n, size int) bool { return n <= size-size/8 }

// newEncoder makes the encoder that all connections of a server share: it compresses on as many CPUs as there are. It takes its memory
// when it is first used.
func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false), zstd.WithWindowSize(maxWindow),
		zstd.WithEncoderConcurrency(runtime.NumCPU()), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

// packer compresses the replies of one connection where that pays: where sending what is saved would take longer than the compression
// does. Both are measured all the time.
type packer struct {
	encoder *zstd.Encoder
	// linkRate returns the bytes per second that the link carries, 0 while nobody knows.
	linkRate func() float64

	mu       sync.Mutex // guards what follows
	rate     float64
	measured time.Time
	// spent and saved sum up what compression took and what it saved, the more recent the more it counts.
	spent   time.Duration
	saved   float64
	skipped int
}

// wanted decides whether to compress the next reply.
func (p *packer) wanted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.measured) > linkCheck {
		p.rate, p.measured = p.linkRate(), now
	}
	if p.rate <= 0 || p.saved/p.rate >= p.spent.Seconds() {
		return true
	}
	if p.skipped++; p.skipped < retryPacked {
		return false
	}
	p.skipped = 0
	return true
}

// pack compresses src into dst, which has as much room, and reports false when src is better sent as it is.
func (p *packer) pack(dst, src []byte) ([]byte, bool) {
	begun := time.Now()
	if len(src) >= 4*packSample {
		at := (len(src) - packSample) / 2
		if sample := p.encoder.EncodeAll(src[at:at+packSample], dst[:0]); !worthwhile(len(sample), packSample) {
			p.learn(time.Since(begun), 0)
			return nil, false
		}
	}
	out := p.encoder.EncodeAll(src, dst[:0])
	ok := worthwhile(len(out), len(src)) && len(out) <= cap(dst)
	saved := 0
	if ok {
		saved = len(src) - len(out)
	}
	p.learn(time.Since(begun), saved)
	return out, ok
}

func (p *packer) learn(took time.Duration, saved int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spent = time.Duration(forget*float64(p.spent)) + took
	p.saved = forget*p.saved + float64(saved)
}

// rateOfLink returns a function that asks the kernel how fast the peer has lately acknowledged what was sent (tcpi_delivery_rate of
// tcp(7)). What is no TCP connection is memory, and faster than any compression.
func rateOfLink(conn net.Conn) func() float64 {
	unlimited := func() float64 { return math.Inf(1) }
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return unlimited
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return unlimited
	}
	return func() float64 {
		var info *unix.TCPInfo
		var failed error
		err := raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
		if err != nil || failed != nil {
			return math.Inf(1) // the connection is ending
		}
		return float64(info.Delivery_rate)
	}
}

// appendPackedHead adds what stands before the compressed data of a chunk to b: where in the export the plain data belongs and how
// long it is.
func appendPackedHead(b []byte, flags uint16, cookie, offset uint64, plain, packed int) []byte {
	b = appendChunk(b, flags, chunkZstd, cookie, uint32(packedHeadSize+packed))
	b = binary.BigEndian.AppendUint64(b, offset)
	return binary.BigEndian.AppendUint32(b, uint32(plain))
}

// newDecoder makes a client's decoder. It never writes past the place that it is given, whatever a frame says.
func newDecoder() (*zstd.Decoder, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(uint64(maxBlock)))
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot make a zstd decoder: %w", err)
	}
	return d, nil
}

// unpack decompresses packed to p, which it must fill.
func unpack(d *zstd.Decoder, p, packed []byte) error {
	out, err := d.DecodeAll(packed, p[:0:len(p)])
	if err != nil {
		return broken("compressed data for %d bytes: %w", len(p), err)
	}
	if len(out) != len(p) {
		return broken("compressed data holds %d bytes where %d are announced", len(out), len(p))
	}
	return nil
}
