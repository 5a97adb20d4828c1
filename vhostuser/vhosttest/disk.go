package vhosttest

// Kinds of requests and their outcomes.
const (
	In          = 0
	Out         = 1
	Flush       = 4
	GetID       = 8
	Discard     = 11
	WriteZeroes = 13

	OK          = 0
	IOErr       = 1
	Unsupported = 2
	// Untouched is what a status is before the request is done.
	Untouched = 0xaa
)

// Slot is a place in guest memory for one request: header, status and data.
type Slot struct {
	g    *Guest
	at   uint64
	size int
}

// slotHead is what a slot has before its data.
const slotHead = 512

// Slot returns the i-th place with room for n bytes of data.
func (g *Guest) Slot(i, n int) *Slot {
	at := uint64(DataAt + i*((slotHead+n+511)/512*512))
	if at+slotHead+uint64(n) > MemorySize {
		g.tb.Fatal("no room in guest memory")
	}
	return &Slot{g: g, at: at, size: n}
}

// Data is the slot's data.
func (s *Slot) Data() []byte { return s.g.Mem[s.at+slotHead:][:s.size] }

// DataAddr is where it is in the guest.
func (s *Slot) DataAddr() uint64 { return s.at + slotHead }

// StatusAddr is where the status is in the guest.
func (s *Slot) StatusAddr() uint64 { return s.at + 16 }

// Status is what the backend has answered.
func (s *Slot) Status() byte { return s.g.Mem[s.at+16] }

// Header writes the request's header.
func (s *Slot) Header(kind uint32, sector uint64) {
	h := s.g.Mem[s.at:]
	order.PutUint32(h, kind)
	order.PutUint32(h[4:], 0)
	order.PutUint64(h[8:], sector)
	h[16] = Untouched
}

// Chain returns the descriptors of a request of the kind.
func (s *Slot) Chain(kind uint32, sector uint64) []Desc {
	s.Header(kind, sector)
	var flags uint16
	if kind == In || kind == GetID {
		flags = Write
	}
	chain := []Desc{{Addr: s.at, Len: 16}}
	if s.size > 0 {
		chain = append(chain, Desc{Addr: s.DataAddr(), Len: uint32(s.size), Flags: flags})
	}
	return append(chain, Desc{Addr: s.StatusAddr(), Len: 1, Flags: Write})
}

// Submit makes the request available and kicks.
func (s *Slot) Submit(kind uint32, sector uint64) (head uint16) {
	s.g.tb.Helper()
	head = s.g.Add(s.Chain(kind, sector)...)
	s.g.Kick()
	return head
}

// Do submits a request and waits for it to be done.
func (s *Slot) Do(kind uint32, sector uint64) (status byte) {
	s.g.tb.Helper()
	head := s.Submit(kind, sector)
	for {
		if got, _ := s.g.Await(); got == head {
			return s.Status()
		}
	}
}

// Write writes bytes to the disk.
func (g *Guest) Write(off int64, p []byte) (status byte) {
	g.tb.Helper()
	s := g.Slot(0, len(p))
	copy(s.Data(), p)
	return s.Do(Out, uint64(off)/512)
}

// Read reads bytes from the disk.
func (g *Guest) Read(off int64, n int) (p []byte, status byte) {
	g.tb.Helper()
	s := g.Slot(0, n)
	status = s.Do(In, uint64(off)/512)
	return append([]byte(nil), s.Data()...), status
}
