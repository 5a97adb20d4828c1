package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"drover/internal/testkit"
)

// requests is what "writer ask" prints.
type requests struct {
	Asked     uint64  `json:"asked"`
	Lost      uint64  `json:"lost"`
	LongestMS float64 `json:"longest_ms"`
	Problem   string  `json:"problem"`
}

// askAll lets a client on host h3 ask all machines until answers is called. Before it returns, every machine has answered once.
func (f *fleet) askAll(ctx context.Context, writers []*writer) (answers func() (requests, error), err error) {
	program := filepath.Join(filepath.Dir(f.cli.Bin), "writer")
	args := []string{"dev", "exec", "h3", "--", program, "ask"}
	for _, w := range writers {
		var m struct {
			PrivateIP string `json:"private_ip"`
		}
		if err := f.cli.Ask(ctx, &m, "machine", "show", w.id); err != nil {
			return nil, err
		}
		address := net.JoinHostPort(m.PrivateIP, drainPort)
		once := []string{"dev", "exec", "h3", "--", "busybox", "nc", "-w", "2", m.PrivateIP, drainPort}
		err := testkit.Eventually(ctx, time.Minute, "an answer of "+w.id, func() (bool, error) {
			cmd := f.cli.Command(ctx, once...)
			cmd.Stdin, cmd.Stderr = bytes.NewBufferString("hello\n"), nil
			out, _ := cmd.Output() // who does not answer yet is asked again
			return string(out) == "hello\n", nil
		})
		if err != nil {
			return nil, err
		}
		args = append(args, address)
	}
	cmd := f.cli.Command(ctx, args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() (sum requests, err error) {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			return sum, fmt.Errorf("the client that asks all machines: %w", err)
		}
		return sum, json.Unmarshal(out.Bytes(), &sum)
	}, nil
}
