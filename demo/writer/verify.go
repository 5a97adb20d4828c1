package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// result is what verify prints.
type result struct {
	// Records is how many whole records there are, from 1 on without a gap; BadRecords how many slots after that hold
	// something else.
	Records    uint64 `json:"records"`
	BadRecords uint64 `json:"bad_records"`
	// Blocks is how many whole blocks the fill file has, BadBlocks how many of them have a wrong content, FirstBad the first of them.
	Blocks    uint64  `json:"blocks"`
	BadBlocks uint64  `json:"bad_blocks"`
	FirstBad  *uint64 `json:"first_bad,omitempty"`
}

// verify reads everything back and compares.
func verify(dir string) error {
	var r result
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	for ; len(log) >= recordSize; log = log[recordSize:] {
		if n, ok := parseRecord(log[:recordSize]); ok && n == r.Records+1 && r.BadRecords == 0 {
			r.Records++
		} else {
			r.BadRecords++
		}
	}
	data, err := os.Open(filepath.Join(dir, "fill"))
	if err != nil {
		return err
	}
	defer data.Close()
	got, want := make([]byte, 256*blockSize), make([]byte, blockSize)
	for {
		n, err := io.ReadFull(data, got)
		for b := got[:n-n%blockSize]; len(b) > 0; b = b[blockSize:] {
			fillBlock(want, r.Blocks)
			if !bytes.Equal(b[:blockSize], want) {
				if r.BadBlocks++; r.FirstBad == nil {
					first := r.Blocks
					r.FirstBad = &first
				}
			}
			r.Blocks++
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return json.NewEncoder(os.Stdout).Encode(r)
		}
		if err != nil {
			return err
		}
	}
}
