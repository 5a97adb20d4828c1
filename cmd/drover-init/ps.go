package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover"
)

const (
	// maxPs bounds the processes of a list, maxCommand the command line of each.
	maxPs      = 1000
	maxCommand = 1024
	// tick is the kernel's unit of processor time in /proc.
	tick = 10 * time.Millisecond
	// kernelThread marks those in the flags of /proc/PID/stat.
	kernelThread = 0x200000
)

// listProcesses reads /proc. Processes that end meanwhile are left out.
func listProcesses(proc string, now time.Time, up float64) ([]drover.Process, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes: %w", err)
	}
	sockets := listenSockets(proc)
	list := []drover.Process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := readProcess(path.Join(proc, e.Name()), now, up); ok {
			p.PID = pid
			p.ListenSockets = socketsOf(path.Join(proc, e.Name(), "fd"), sockets)
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b drover.Process) int { return a.PID - b.PID })
	return list[:min(len(list), maxPs)], nil
}

// readProcess reads what /proc tells of one process; false for one that is gone, or is the kernel's own.
func readProcess(dir string, now time.Time, up float64) (drover.Process, bool) {
	stat, err := os.ReadFile(path.Join(dir, "stat"))
	if err != nil {
		return drover.Process{}, false
	}
	p, ok := parseStat(stat, now, up)
	if !ok {
		return p, false
	}
	if line, err := os.ReadFile(path.Join(dir, "cmdline")); err == nil && len(line) > 0 {
		line = bytes.ReplaceAll(bytes.TrimRight(line[:min(len(line), maxCommand)], "\x00"), []byte{0}, []byte{' '})
		p.Command = strings.ToValidUTF8(string(line), "\uFFFD")
	}
	if cwd, err := os.Readlink(path.Join(dir, "cwd")); err == nil {
		p.Directory = cwd
	}
	return p, true
}

// parseStat reads /proc/PID/stat. The name in brackets may have spaces and brackets of its own.
func parseStat(stat []byte, now time.Time, up float64) (p drover.Process, ok bool) {
	open, closing := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || closing < open {
		return p, false
	}
	p.Command = string(stat[open+1 : closing])
	fields := strings.Fields(string(stat[closing+1:])) // from the third field of proc(5) on
	number := func(n int) uint64 {
		if n-3 >= len(fields) {
			return 0
		}
		v, err := strconv.ParseUint(fields[n-3], 10, 64)
		if err != nil {
			return 0
		}
		return v
	}
	if len(fields) < 22 || number(9)&kernelThread != 0 {
		return p, false
	}
	p.CPU = (number(14) + number(15)) * uint64(tick/time.Millisecond)
	p.RSS = drover.Bytes(number(24)) * drover.Bytes(os.Getpagesize())
	ran := max(up-float64(number(22))*tick.Seconds(), 0)
	p.RTime = uint64(ran)
	p.STime = uint64(now.Add(-time.Duration(ran * float64(time.Second))).Unix())
	return p, true
}

// listenSockets returns the sockets at which something is awaited, by inode.
func listenSockets(proc string) map[string]drover.ListenSocket {
	found := map[string]drover.ListenSocket{}
	for _, table := range []struct{ file, proto, state string }{{"tcp", "tcp", "0A"}, {"tcp6", "tcp", "0A"}, {"udp", "udp", "07"}, {"udp6", "udp", "07"}} {
		data, err := os.ReadFile(path.Join(proc, "net", table.file))
		if err != nil {
			continue // a kernel without the protocol
		}
		for line := range strings.Lines(string(data)) {
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != table.state {
				continue
			}
			if address, ok := parseSocket(fields[1]); ok {
				found[fields[9]] = drover.ListenSocket{Proto: table.proto, Address: address}
			}
		}
	}
	return found
}

// parseSocket reads an address of /proc/net/tcp: hexadecimal words in the CPU's order, and the port.
func parseSocket(text string) (string, bool) {
	host, port, ok := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	raw, herr := hex.DecodeString(host)
	if !ok || err != nil || herr != nil || len(raw)%4 != 0 {
		return "", false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	address, ok := netip.AddrFromSlice(raw)
	if !ok {
		return "", false
	}
	return netip.AddrPortFrom(address, uint16(number)).String(), true
}

// socketsOf returns those of the sockets that a process has open.
func socketsOf(dir string, sockets map[string]drover.ListenSocket) []drover.ListenSocket {
	list := []drover.ListenSocket{}
	if len(sockets) == 0 {
		return list
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return list // it has ended
	}
	for _, e := range entries {
		target, err := os.Readlink(path.Join(dir, e.Name()))
		inode, ok := strings.CutPrefix(target, "socket:[")
		if err != nil || !ok {
			continue
		}
		s, ok := sockets[strings.TrimSuffix(inode, "]")]
		if ok && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}
