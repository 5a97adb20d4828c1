package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "writer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: writer run|verify -dir DIR, or writer ask ADDRESS:PORT [ADDRESS:PORT ...]")
	}
	if args[0] == "ask" {
		return ask(args[1:], os.Stdin, os.Stdout)
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	dir := flags.String("dir", "/data", "directory of the log and the fill file")
	fill := flags.Int("fill", 0, "MiB of checksummed blocks to write")
	pause := flags.Duration("pause", 5*time.Millisecond, "pause between two records")
	port := flags.Int("serve", 0, "answer what is asked at this TCP port; 0 is none")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "run":
		if *port != 0 {
			listener, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(*port)))
			if err != nil {
				return err
			}
			go serve(listener)
		}
		return write(*dir, *fill, *pause)
	case "verify":
		return verify(*dir)
	}
	return fmt.Errorf("unknown command %q: run, verify or ask", args[0])
}

// write appends and fills until a signal comes or a write fails.
func write(dir string, fillMiB int, pause time.Duration) error {
	token := make([]byte, 4)
	rand.Read(token)
	boot := hex.EncodeToString(token)

	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	records, err := wholeRecords(log)
	if err != nil {
		return err
	}
	data, err := os.OpenFile(filepath.Join(dir, "fill"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	size, err := data.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	blocks := uint64(size / blockSize)
	fmt.Printf("BOOT %s %d %d\n", boot, records, blocks)

	ended := make(chan error, 2)
	go func() { ended <- appendRecords(log, records, boot, pause) }()
	go func() {
		if err := fillFile(data, blocks, uint64(fillMiB)<<20/blockSize); err != nil {
			ended <- err
		}
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	select {
	case err := <-ended:
		return err
	case s := <-signals:
		fmt.Printf("STOP %s\n", s)
		return nil
	}
}

// wholeRecords reads the log, cuts off a torn last record (which nobody was told of) and returns how many there are.
func wholeRecords(log *os.File) (uint64, error) {
	all, err := io.ReadAll(log)
	if err != nil {
		return 0, err
	}
	var n uint64
	for ; len(all) >= recordSize; all = all[recordSize:] {
		if got, ok := parseRecord(all[:recordSize]); !ok || got != n+1 {
			if len(all) > recordSize {
				fmt.Printf("CORRUPT record %d\n", n+1)
			}
			break
		}
		n++
	}
	if err := log.Truncate(int64(n) * recordSize); err != nil {
		return 0, err
	}
	return n, nil
}

func appendRecords(log *os.File, last uint64, boot string, pause time.Duration) error {
	for n := last + 1; ; n++ {
		if _, err := log.WriteAt(record(n, boot), int64(n-1)*recordSize); err != nil {
			return err
		}
		if err := log.Sync(); err != nil {
			return err
		}
		fmt.Printf("ACK %d %s\n", n, boot)
		time.Sleep(pause)
	}
}

// fillFile writes blocks from the first up to the total, 1 MiB at a time, durable every 16 MiB.
func fillFile(data *os.File, first, total uint64) error {
	const chunk = 256
	buf := make([]byte, chunk*blockSize)
	for n := first; n < total; {
		count := min(chunk, total-n)
		for i := range count {
			fillBlock(buf[i*blockSize:(i+1)*blockSize], n+i)
		}
		if _, err := data.WriteAt(buf[:count*blockSize], int64(n)*blockSize); err != nil {
			return err
		}
		if n += count; n%(16*chunk) == 0 || n == total {
			if err := data.Sync(); err != nil {
				return err
			}
			fmt.Printf("FILLED %d\n", n)
		}
	}
	return nil
}
