package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"drover"
	"drover/nbd"
)

// The form of a memory image: a magic, the length and the checksum of the head, the head itself; from memoryData on the VM's state as the VMM
// has written it. The head is written last, when the rest is durable: an image without one is not whole.
const (
	memoryMagic   = "drovermem1\n"
	memoryVersion = 1
	memoryData    = 1 << 20
	memoryChunk   = 1 << 20
)

// memoryHead says what the state belongs to, so that an image needs no record beside it: it moves with its layer.
type memoryHead struct {
	Version int `json:"version"`
	// Incarnation is the VM, CPU and Platform what it saw: its state is of use to an equal one only.
	Incarnation drover.Incarnation `json:"incarnation"`
	CPU         string             `json:"cpu"`
	Platform    string             `json:"platform"`
	Disks       []drover.DiskID    `json:"disks"`
	// Handover is what the VM had told its host.
	Handover drover.Handover `json:"handover"`
	SavedAt  time.Time       `json:"saved_at"`
	// Length and Sum (CRC-32C) are the state's.
	Length int64  `json:"length"`
	Sum    uint32 `json:"sum"`
}

// LayerData is a connection to an open layer (nbd.Client).
type LayerData interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64, fua bool) error
	Flush(ctx context.Context) error
	Close() error
}

var _ LayerData = (*nbd.Client)(nil)

// dialLayer connects to a layer as a VM without shared memory does.
func dialLayer(ctx context.Context, at Attachment) (LayerData, error) {
	at, err := at.Over(drover.TransportNBD)
	if err != nil {
		return nil, err
	}
	return nbd.Dial(ctx, nbd.ClientConfig{Network: "unix", Address: at.Socket, Export: at.Export})
}

// memorySize is how large the layer must be at most: pages have a word beside them, and devices have state, too.
func memorySize(memoryMB int) drover.Bytes {
	m := drover.Bytes(memoryMB) * drover.MiB
	return m + m/64 + 64*drover.MiB + memoryData
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// memoryWriter writes the state into a layer, in whole chunks.
type memoryWriter struct {
	ctx  context.Context
	to   LayerData
	most int64
	buf  []byte
	n    int64
	sum  hash.Hash32
}

func newMemoryWriter(ctx context.Context, to LayerData, size drover.Bytes) *memoryWriter {
	return &memoryWriter{ctx: ctx, to: to, most: int64(size) - memoryData, buf: make([]byte, 0, memoryChunk), sum: crc32.New(castagnoli())}
}

// Write takes a part of the state. Exhausted when the layer is too small for it.
func (w *memoryWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		k := min(len(p)-done, memoryChunk-len(w.buf))
		w.buf = append(w.buf, p[done:done+k]...)
		done += k
		if len(w.buf) == memoryChunk {
			if err := w.put(); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

// put writes the buffer.
func (w *memoryWriter) put() error {
	w.sum.Write(w.buf) // never fails
	at := w.n
	w.n += int64(len(w.buf))
	padded := w.buf
	if odd := len(padded) % int(drover.BlockSize); odd != 0 {
		padded = append(padded, make([]byte, int(drover.BlockSize)-odd)...)
	}
	if at+int64(len(padded)) > w.most {
		return drover.Errorf(drover.Exhausted, "the state of the VM is larger than %d bytes", w.most)
	}
	if err := w.to.WriteAt(w.ctx, padded, memoryData+at, false); err != nil {
		return err
	}
	w.buf = w.buf[:0]
	return nil
}

// finish writes what is left, and then, when that is durable, the head.
func (w *memoryWriter) finish(head memoryHead) error {
	if len(w.buf) > 0 {
		if err := w.put(); err != nil {
			return err
		}
	}
	head.Version, head.Length, head.Sum = memoryVersion, w.n, w.sum.Sum32()
	text, err := json.Marshal(head)
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot describe the memory of machine %q: %w", head.Incarnation.Spec.ID, err)
	}
	block := append([]byte(memoryMagic), binary.BigEndian.AppendUint32(nil, uint32(len(text)))...)
	block = binary.BigEndian.AppendUint32(block, crc32.Checksum(text, castagnoli()))
	if block = append(block, text...); len(block) > memoryData {
		return drover.Errorf(drover.Exhausted, "the config of machine %q is too large to be kept with its memory: %d bytes", head.Incarnation.Spec.ID, len(text))
	}
	if odd := len(block) % int(drover.BlockSize); odd != 0 {
		block = append(block, make([]byte, int(drover.BlockSize)-odd)...)
	}
	if err := w.to.Flush(w.ctx); err != nil {
		return err
	}
	if err := w.to.WriteAt(w.ctx, block, 0, true); err != nil {
		return err
	}
	return w.to.Flush(w.ctx)
}

// errMemoryDamaged is what reading an image ends with that is not what was written.
func memoryDamaged(format string, args ...any) error {
	return drover.Errorf(drover.Invalid, "the memory image is damaged: %s", fmt.Sprintf(format, args...))
}

// readMemoryHead reads the head. Invalid when there is none that makes sense.
func readMemoryHead(ctx context.Context, from LayerData) (memoryHead, error) {
	var head memoryHead
	block := make([]byte, memoryData)
	if err := from.ReadAt(ctx, block, 0); err != nil {
		return head, err
	}
	if !bytes.HasPrefix(block, []byte(memoryMagic)) {
		return head, memoryDamaged("it has no head")
	}
	rest := block[len(memoryMagic):]
	length, sum := binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:])
	rest = rest[8:]
	if int64(length) > int64(len(rest)) {
		return head, memoryDamaged("its head has %d bytes", length)
	}
	text := rest[:length]
	if crc32.Checksum(text, castagnoli()) != sum {
		return head, memoryDamaged("the checksum of its head is wrong")
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return head, memoryDamaged("its head cannot be read: %v", err)
	}
	if head.Version != memoryVersion || head.Length <= 0 {
		return head, memoryDamaged("version %d with %d bytes is not known here", head.Version, head.Length)
	}
	return head, nil
}

// memoryReader reads the state out of a layer. In place of the end it gives Invalid when the checksum is wrong.
type memoryReader struct {
	ctx  context.Context
	from LayerData
	head memoryHead
	buf  []byte
	left []byte
	at   int64
	sum  hash.Hash32
}

func newMemoryReader(ctx context.Context, from LayerData, head memoryHead) *memoryReader {
	return &memoryReader{ctx: ctx, from: from, head: head, buf: make([]byte, memoryChunk), sum: crc32.New(castagnoli())}
}

func (r *memoryReader) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		if r.at == r.head.Length {
			if r.sum.Sum32() != r.head.Sum {
				return 0, memoryDamaged("its checksum is wrong")
			}
			return 0, io.EOF
		}
		n := min(r.head.Length-r.at, memoryChunk)
		whole := (n + int64(drover.BlockSize) - 1) / int64(drover.BlockSize) * int64(drover.BlockSize)
		if err := r.from.ReadAt(r.ctx, r.buf[:whole], memoryData+r.at); err != nil {
			return 0, err
		}
		r.left = r.buf[:n]
		r.sum.Write(r.left) // never fails
		r.at += n
	}
	k := copy(p, r.left)
	r.left = r.left[k:]
	return k, nil
}

// unusable says why the image is of no use to the machine on this host; empty when it is.
func (h memoryHead) unusable(cfg Config, d drover.Machine, disks []diskRecord) string {
	size := d.Config.WithDefaults().Guest
	var now []drover.DiskID
	for _, disk := range disks {
		now = append(now, disk.Disk)
	}
	switch inc := h.Incarnation; {
	case inc.Spec.ID != d.ID:
		return fmt.Sprintf("it is of machine %q", inc.Spec.ID)
	case inc.Instance != d.Instance || inc.CPUs != size.CPUs || inc.MemoryMB != size.MemoryMB:
		return "the machine's config was changed"
	case h.Platform != cfg.Platform:
		return fmt.Sprintf("it was written by %q, and VMs run on %q here now", h.Platform, cfg.Platform)
	case h.CPU != cfg.GuestCPU:
		return fmt.Sprintf("the guest saw the processor %q, and would see %q here", h.CPU, cfg.GuestCPU)
	case !slices.Equal(h.Disks, now):
		return fmt.Sprintf("it belongs to the disks %v, and the machine has %v", h.Disks, now)
	}
	return ""
}
