package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

const (
	blockSize  = 4096
	recordSize = 64
)

// record formats log record n of a run as a fixed-size line that carries its own checksum.
func record(n uint64, boot string) []byte {
	body := fmt.Sprintf("%020d %8s", n, boot)
	line := fmt.Sprintf("%s %08x", body, crc32.ChecksumIEEE([]byte(body)))
	return []byte(line + strings.Repeat(" ", recordSize-1-len(line)) + "\n")
}

// parseRecord returns the number of a record; ok is false when its checksum or form is wrong.
func parseRecord(b []byte) (n uint64, ok bool) {
	fields := strings.Fields(string(b))
	if len(b) != recordSize || len(fields) != 3 {
		return 0, false
	}
	n, err := strconv.ParseUint(fields[0], 10, 64)
	if err != nil || string(record(n, fields[1])) != string(b) {
		return 0, false
	}
	return n, true
}

// fillBlock fills b with the content of block n: its number, then a pseudo-random stream that depends on the number alone, so
// that a block of zeroes, of another number or with a flipped bit is told from the right one.
func fillBlock(b []byte, n uint64) {
	binary.LittleEndian.PutUint64(b, n)
	x := (n + 1) * 0x9E3779B97F4A7C15
	for i := 8; i < blockSize; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b[i:], x)
	}
}
