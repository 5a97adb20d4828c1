package vhostuser

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"drover/vhostuser/vhosttest"
)

// A ring that makes no sense is given up, without harm to the device, until the guest begins anew.
func TestRingsThatMakeNoSense(t *testing.T) {
	const write, next, indirect = vhosttest.Write, vhosttest.Next, vhosttest.Indirect
	const table = 0x200000
	good := func(r *rig) (head, data, status vhosttest.Desc) {
		s := r.Slot(0, 512)
		s.Header(vhosttest.In, 0)
		return vhosttest.Desc{Addr: s.StatusAddr() - 16, Len: 16}, vhosttest.Desc{Addr: s.DataAddr(), Len: 512, Flags: write},
			vhosttest.Desc{Addr: s.StatusAddr(), Len: 1, Flags: write}
	}
	after := func() {}
	for name, bend := range map[string]func(r *rig){
		"head out of range":  func(r *rig) { r.Offer(16) },
		"index jumps":        func(r *rig) { r.SetAvailIdx(300) },
		"index goes back":    func(r *rig) { r.SetAvailIdx(65535) },
		"loop":               func(r *rig) { h, _, _ := good(r); h.Flags |= next; r.SetDesc(0, h, 0); r.Offer(0) },
		"next out of range":  func(r *rig) { h, _, _ := good(r); h.Flags |= next; r.SetDesc(0, h, 16); r.Offer(0) },
		"no status":          func(r *rig) { h, _, _ := good(r); r.Add(h) },
		"short header":       func(r *rig) { h, d, s := good(r); h.Len = 15; r.Add(h, d, s) },
		"no header":          func(r *rig) { _, d, s := good(r); r.Add(d, s) },
		"read after write":   func(r *rig) { h, d, s := good(r); r.Add(h, d, s, h) },
		"address beyond":     func(r *rig) { h, d, s := good(r); d.Addr = vhosttest.MemorySize - 511; r.Add(h, d, s) },
		"address far beyond": func(r *rig) { h, d, s := good(r); d.Addr = ^uint64(0) - 100; r.Add(h, d, s) },
		"length beyond":      func(r *rig) { h, d, s := good(r); d.Len = ^uint32(0); r.Add(h, d, s) },
		"taken twice":        func(r *rig) { after = r.disk.hold(0); r.Offer(r.Slot(0, 512).Submit(vhosttest.Out, 0)) },
		"indirect and next": func(r *rig) {
			h, d, _ := good(r)
			vhosttest.PutDesc(r.Mem[table:], d, 0)
			r.Add(vhosttest.Desc{Addr: table, Len: 16, Flags: indirect}, h)
		},
		"indirect in indirect": func(r *rig) {
			vhosttest.PutDesc(r.Mem[table:], vhosttest.Desc{Addr: table, Len: 16, Flags: indirect}, 0)
			r.Add(vhosttest.Desc{Addr: table, Len: 16, Flags: indirect})
		},
		"indirect loop": func(r *rig) {
			h, _, _ := good(r)
			h.Flags |= next
			vhosttest.PutDesc(r.Mem[table:], h, 1)
			vhosttest.PutDesc(r.Mem[table+16:], h, 0)
			r.Add(vhosttest.Desc{Addr: table, Len: 32, Flags: indirect})
		},
		"indirect next out of range": func(r *rig) {
			h, _, _ := good(r)
			h.Flags |= next
			vhosttest.PutDesc(r.Mem[table:], h, 1)
			r.Add(vhosttest.Desc{Addr: table, Len: 16, Flags: indirect})
		},
		"indirect length":  func(r *rig) { r.Add(vhosttest.Desc{Addr: table, Len: 17, Flags: indirect}) },
		"indirect empty":   func(r *rig) { r.Add(vhosttest.Desc{Addr: table, Len: 0, Flags: indirect}) },
		"indirect long":    func(r *rig) { r.Add(vhosttest.Desc{Addr: table, Len: 1 << 20, Flags: indirect}) },
		"indirect beyond":  func(r *rig) { r.Add(vhosttest.Desc{Addr: vhosttest.MemorySize - 16, Len: 32, Flags: indirect}) },
		"indirect crooked": func(r *rig) { r.Add(vhosttest.Desc{Addr: table + 1, Len: 32, Flags: indirect}) },
	} {
		t.Run(name, func(t *testing.T) {
			r := begin(t, 16)
			fail, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fail)
			r.Set(vhosttest.SetVringErr, vhosttest.U64(0), fail)
			bend(r)
			r.Kick()
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fail), Events: unix.POLLIN}}, 20000); err != nil || n != 1 {
				t.Fatalf("the ring is not given up: %d %v", n, err)
			}
			after()
			after = func() {}
			r.End()
			r.Restart()
			r.BeginRing(0, 0)
			wantStatus(t, r.Write(0, make([]byte, 512)), vhosttest.OK)
		})
	}
}

// Messages that make no sense are refused, and the device goes on.
func TestMessagesThatMakeNoSense(t *testing.T) {
	r := begin(t, 16)
	event := r.KickFD()
	small, err := unix.MemfdCreate("small", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(small)
	if err := unix.Ftruncate(small, 4096); err != nil {
		t.Fatal(err)
	}
	open, err := unix.MemfdCreate("open", unix.MFD_CLOEXEC) // cannot be sealed
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(open)
	if err := unix.Ftruncate(open, 1<<20); err != nil {
		t.Fatal(err)
	}
	one := func(region []byte) []byte { return append(vhosttest.Pair(1, 0), region...) }
	for name, c := range map[string]struct {
		request uint32
		payload []byte
		fds     []int
	}{
		"unknown request":         {99, nil, nil},
		"features":                {vhosttest.SetFeatures, vhosttest.U64(1 << 60), nil},
		"short features":          {vhosttest.SetFeatures, []byte{1}, nil},
		"protocol features":       {vhosttest.SetProtocolFeatures, vhosttest.U64(1 << 60), nil},
		"table without memory":    {vhosttest.SetMemTable, vhosttest.Pair(0, 0), nil},
		"table of too many":       {vhosttest.SetMemTable, vhosttest.Pair(1<<31, 0), nil},
		"table without fd":        {vhosttest.SetMemTable, one(vhosttest.Region(0, 4096, 0, 0)), nil},
		"table with an event":     {vhosttest.SetMemTable, one(vhosttest.Region(0, 4096, 0, 0)), []int{event}},
		"table over the end":      {vhosttest.SetMemTable, one(vhosttest.Region(0, 8192, 0, 0)), []int{small}},
		"table that wraps":        {vhosttest.SetMemTable, one(vhosttest.Region(0, 4096, 0, ^uint64(0)-4095)), []int{small}},
		"table of nothing":        {vhosttest.SetMemTable, one(vhosttest.Region(0, 0, 0, 0)), []int{small}},
		"crooked table":           {vhosttest.SetMemTable, one(vhosttest.Region(0, 1024, 0, 512)), []int{small}},
		"memory that may shrink":  {vhosttest.SetMemTable, one(vhosttest.Region(0, 4096, 0, 0)), []int{open}},
		"table without the rings": {vhosttest.SetMemTable, one(vhosttest.Region(0, 4096, 0, 0)), []int{small}},
		"unknown region":          {vhosttest.RemMemReg, append(vhosttest.U64(0), vhosttest.Region(0, 4096, 0, 0)...), nil},
		"ring number":             {vhosttest.SetVringNum, vhosttest.Pair(64, 16), nil},
		"ring size 0":             {vhosttest.SetVringNum, vhosttest.Pair(1, 0), nil},
		"ring size 15":            {vhosttest.SetVringNum, vhosttest.Pair(1, 15), nil},
		"ring size large":         {vhosttest.SetVringNum, vhosttest.Pair(1, 1<<15), nil},
		"ring that runs":          {vhosttest.SetVringNum, vhosttest.Pair(0, 8), nil},
		"base of one that runs":   {vhosttest.SetVringBase, vhosttest.Pair(0, 8), nil},
		"address of nothing":      {vhosttest.SetVringAddr, append(vhosttest.Pair(0, 0), make([]byte, 32)...), nil},
		"kick without fd":         {vhosttest.SetVringKick, vhosttest.U64(1), nil},
		"kick by a file":          {vhosttest.SetVringKick, vhosttest.U64(1), []int{small}},
		"kick by polling":         {vhosttest.SetVringKick, vhosttest.U64(1 | noFD), nil},
		"kick of a ring unsized":  {vhosttest.SetVringKick, vhosttest.U64(1), []int{event}},
		"call by a file":          {vhosttest.SetVringCall, vhosttest.U64(1), []int{small}},
		"log over the end":        {vhosttest.SetLogBase, append(vhosttest.U64(8192), vhosttest.U64(0)...), []int{small}},
		"log without fd":          {vhosttest.SetLogBase, append(vhosttest.U64(4096), vhosttest.U64(0)...), nil},
		"in-flight too small":     {vhosttest.SetInflightFD, append(append(vhosttest.U64(4096), vhosttest.U64(0)...), 64, 0, 0, 4), []int{small}},
		"in-flight while running": {vhosttest.SetInflightFD, append(append(vhosttest.U64(4096), vhosttest.U64(0)...), 1, 0, 16, 0), []int{small}},
		"set config":              {vhosttest.SetConfig, make([]byte, 16), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if r.Tell(c.request, c.payload, c.fds...) {
				t.Error("taken")
			}
			wantStatus(t, r.Write(0, make([]byte, 512)), vhosttest.OK)
		})
	}
}

// A question that cannot be answered, or bytes that are no message, end the connection.
func TestNonsenseEndsTheConnection(t *testing.T) {
	for name, send := range map[string]func(r *rig) error{
		"config beyond":   func(r *rig) error { return r.Send(vhosttest.GetConfig, 0, append(vhosttest.Pair(250, 60), 0, 0, 0, 0)) },
		"ring beyond":     func(r *rig) error { return r.Send(vhosttest.GetVringBase, 0, vhosttest.Pair(64, 0)) },
		"in-flight of 0":  func(r *rig) error { return r.Send(vhosttest.GetInflightFD, 0, make([]byte, 20)) },
		"a reply":         func(r *rig) error { return r.Send(vhosttest.SetOwner, 4, nil) },
		"a long message":  func(r *rig) error { return r.Send(vhosttest.SetOwner, 0, make([]byte, 1025)) },
		"another version": func(r *rig) error { return r.Send(vhosttest.SetOwner, 2, nil) },
		"half a message":  func(r *rig) error { _, err := r.Conn.Write(make([]byte, 5)); r.Detach(); return err },
	} {
		t.Run(name, func(t *testing.T) {
			r := begin(t, 16)
			if err := send(r); err != nil {
				t.Fatal(err)
			}
			if err := <-r.done; err == nil {
				t.Error("the connection ended without a word")
			}
		})
	}
}

// The guest changes its memory all the time while requests are taken from it.
func TestMemoryThatChangesMeanwhile(t *testing.T) {
	r := begin(t, 16)
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		random := rand.New(rand.NewPCG(1, 2))
		for {
			select {
			case <-stop:
				return
			default:
			}
			for range 100 { // descriptors of the table, mostly near to what makes sense
				at := 0x1000 + random.IntN(16)*16
				switch random.IntN(4) {
				case 0:
					order.PutUint64(r.Mem[at:], random.Uint64N(vhosttest.MemorySize+8192))
				case 1:
					order.PutUint32(r.Mem[at+8:], random.Uint32N(70000))
				default:
					order.PutUint16(r.Mem[at+12:], uint16(random.IntN(8)))
					order.PutUint16(r.Mem[at+14:], uint16(random.IntN(17)))
				}
			}
		}
	}()
	for i := range 2000 {
		r.Offer(uint16(i % 17))
		r.Kick()
		if i%20 == 0 {
			r.End()
			clear(r.Mem[0x9000:0xb000])
			r.Restart()
			r.BeginRing(0, 0)
		}
	}
	close(stop)
	<-ended
	r.End()
	r.Restart()
	r.BeginRing(0, 0)
	wantStatus(t, r.Write(0, make([]byte, 512)), vhosttest.OK)
}
