package vhostuser

import (
	"bytes"
	"context"
	"net"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/vhostuser/vhosttest"
)

// FuzzChains puts anything into descriptors and tables: a chain is refused, or names guest memory only.
func FuzzChains(f *testing.F) {
	f.Add([]byte{0, 16, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 0, 32, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0}, uint16(0), true)
	f.Add(bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 4, 0, 0, 0}, 8), uint16(3), true)
	f.Fuzz(func(t *testing.T, guest []byte, head uint16, indirect bool) {
		const num, regionA, regionB = 8, 4096, 8192
		// All of the guest's memory lies between two parts that nobody may touch.
		mem, err := unix.Mmap(-1, 0, 5*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(mem)
		inner := mem[4096 : 4*4096]
		copy(inner, guest)
		for _, edge := range [][]byte{mem[:4096], mem[4*4096:]} {
			if err := unix.Mprotect(edge, unix.PROT_NONE); err != nil {
				t.Fatal(err)
			}
		}
		m := &memory{regions: []region{{guest: 0, size: regionA, mem: inner[:regionA]}, {guest: regionA, size: regionB, mem: inner[regionA:]}}}
		r := ring{num: num, desc: unsafe.Pointer(&inner[0])}
		var b buffers
		if head %= num; b.collect(&r, m, head, indirect) != nil {
			return
		}
		if len(b.in) != len(b.addrs) || len(b.in)+len(b.out) > maxSegments {
			t.Fatalf("%d buffers to write, %d addresses, %d to read", len(b.in), len(b.addrs), len(b.out))
		}
		for i, p := range b.in {
			if len(p) == 0 || !bytes.Equal(p, inner[b.addrs[i]:][:len(p)]) {
				t.Fatal("a buffer is not where its address says")
			}
		}
		var h [blkHeader]byte
		before := vecSize(b.out)
		if n := int64(b.pull(h[:])); vecSize(b.out) != before-n {
			t.Fatal("the header was not taken off")
		}
		before = vecSize(b.in)
		if _, addr, ok := b.takeLast(); ok && (addr >= uint64(len(inner)) || vecSize(b.in) != before-1) {
			t.Fatalf("the status is at %#x", addr)
		}
	})
}

// FuzzMessages sends anything to a device that has a guest. It must answer or hang up.
func FuzzMessages(f *testing.F) {
	message := func(request uint32, payload []byte) []byte {
		b := order.AppendUint32(nil, request)
		b = order.AppendUint32(b, flagVersion|flagNeedReply)
		return append(order.AppendUint32(b, uint32(len(payload))), payload...)
	}
	f.Add(append(message(reqGetFeatures, nil), message(reqSetProtocolFeatures, u64(protoReplyAck))...))
	f.Add(append(message(reqSetMemTable, vhosttest.MemTable()), message(reqSetVringNum, vhosttest.Pair(0, 16))...))
	f.Add(append(message(reqSetVringAddr, vhosttest.VringAddr(0, true)), message(reqGetVringBase, vhosttest.Pair(0, 0))...))
	f.Add(message(reqGetConfig, append(vhosttest.Pair(0, 60), 0, 0, 0, 0)))
	f.Add(message(reqAddMemReg, append(make([]byte, 8), vhosttest.Region(0, 4096, 0, 0)...)))
	f.Add(message(reqGetInflightFD, append(append(u64(0), u64(0)...), 1, 0, 16, 0)))
	f.Fuzz(func(t *testing.T, stream []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		mem, err := unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(mem)
		if err := unix.Ftruncate(mem, 1<<20); err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fds[0]), "socket")
		conn, err := net.FileConn(file)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		d := New(Config{Backend: newDisk(1 << 16), Size: 1 << 16})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = d.Serve(context.Background(), conn.(*net.UnixConn)) // most of it is nonsense
		}()
		stream = stream[:min(len(stream), 16<<10)]
		if len(stream) > 0 {
			_ = unix.Sendmsg(fds[1], stream, unix.UnixRights(mem), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		if err := unix.Close(fds[1]); err != nil {
			t.Fatal(err)
		}
		<-done
	})
}

// FuzzInflight gives the device in-flight memory that another process left.
func FuzzInflight(f *testing.F) {
	a := &inflightArea{mem: make([]byte, 512), queues: 1, ring: 16}
	a.format()
	f.Add(a.mem, uint16(3))
	f.Fuzz(func(t *testing.T, left []byte, used uint16) {
		a := &inflightArea{mem: make([]byte, inflightStride(16)), queues: 1, ring: 16}
		copy(a.mem, left)
		q, err := a.queue(0, 16)
		if err != nil {
			t.Fatal(err)
		}
		heads, err := q.recover(used)
		if err != nil {
			return
		}
		again, err := q.recover(used)
		if err != nil || len(again) != len(heads) || len(heads) > 16 {
			t.Fatalf("in flight: %v, then %v, %v", heads, again, err)
		}
		for _, h := range heads {
			q.take(h)
			q.completing(h)
			used++
			q.completed(h, used)
		}
		if left, err := q.recover(used); err != nil || len(left) != 0 {
			t.Fatalf("still in flight: %v, %v", left, err)
		}
	})
}
