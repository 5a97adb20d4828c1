package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"drover"
	"drover/apiv1"
)

func TestCommandWithStreams(t *testing.T) {
	_, c, id := serve(t)
	start := func(req apiv1.ExecStreamRequest) (stdout, stderr string, exit drover.StreamExit, err error) {
		cmd, err := c.Start(t.Context(), "ledger", id, req)
		if err != nil {
			return "", "", exit, err
		}
		var out, errs bytes.Buffer
		exit, err = cmd.Run(t.Context(), strings.NewReader(strings.Repeat("0123456789", 300_000)), &out, &errs)
		return out.String(), errs.String(), exit, err
	}
	stdout, stderr, exit, err := start(apiv1.ExecStreamRequest{Command: []string{"cat"}})
	_, rest, _ := strings.Cut(stdout, "\n")
	if err != nil || exit.ExitCode != 3 || rest != strings.Repeat("0123456789", 300_000) || stderr != "end\n" {
		t.Errorf("%d bytes and %q, %+v, %v", len(rest), stderr, exit, err)
	}
	if _, _, _, err := start(apiv1.ExecStreamRequest{Command: []string{"refused"}}); !drover.Is(err, drover.Precondition) || drover.AsError(err).Hint == "" {
		t.Errorf("a refusal of the host is %v", err)
	}
	if _, _, _, err := start(apiv1.ExecStreamRequest{Command: []string{""}}); !drover.Is(err, drover.Invalid) || drover.AsError(err).Field != "command" {
		t.Errorf("a bad command is %v", err)
	}
	if _, err := c.Start(t.Context(), "ledger", "d0000000000099", apiv1.ExecStreamRequest{}); !drover.Is(err, drover.NotFound) {
		t.Errorf("no machine: %v", err)
	}
}

func TestCommandIsHungUp(t *testing.T) {
	_, c, id := serve(t)
	cmd, err := c.Start(t.Context(), "ledger", id, apiv1.ExecStreamRequest{Terminal: true, Size: drover.TerminalSize{Rows: 5, Columns: 6}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stdin, keep := io.Pipe()
	defer keep.Close()
	out := &watcher{want: "signal INT", seen: cancel}
	if err := errors.Join(cmd.Resize(drover.TerminalSize{Rows: 7, Columns: 8}), cmd.Signal("INT")); err != nil {
		t.Error(err)
	}
	if _, err := cmd.Run(ctx, stdin, out, out); !drover.Is(err, drover.Canceled) {
		t.Errorf("hung up: %v", err)
	}
	if !strings.Contains(out.String(), "true 5x6\n7x8 <nil>\nsignal INT\n") {
		t.Errorf("the command got %q", out.String())
	}
}

// watcher calls seen once it has got the text.
type watcher struct {
	bytes.Buffer
	want string
	seen func()
}

func (w *watcher) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	if strings.Contains(w.String(), w.want) {
		w.seen()
	}
	return n, err
}
