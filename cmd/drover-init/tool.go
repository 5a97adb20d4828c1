package main

import (
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// toolOutput bounds what is kept of what a tool says.
const toolOutput = 4096

// runTool runs a program of the initial RAM disk's /sbin to its end, and returns its exit code and what it said. One that takes longer than most is killed,
// which is an error.
func runTool(procs *processes, most time.Duration, argv ...string) (code int, said string, err error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, "", err
	}
	defer closeFD(null)
	output, w, err := outputPipe()
	if err != nil {
		return 0, "", err
	}
	defer output.Close() // only read
	proc, err := procs.start(command{path: path.Join("/sbin", argv[0]), argv: argv, dir: "/", files: [3]int{null, w, w},
		env: []string{"LD_LIBRARY_PATH=/lib", "PATH=/sbin"}})
	if err := errors.Join(err, unix.Close(w)); err != nil {
		return 0, "", fmt.Errorf("cannot run %s: %w", argv[0], err)
	}
	if err := output.SetReadDeadline(time.Now().Add(most)); err != nil {
		return 0, "", errors.Join(fmt.Errorf("cannot run %s: %w", argv[0], err), procs.killGroup(proc))
	}
	text, err := io.ReadAll(io.LimitReader(output, toolOutput))
	if err == nil {
		_, err = io.Copy(io.Discard, output) // so that one that says more can end
	}
	if err != nil {
		return 0, "", fmt.Errorf("%s did not end: %w", argv[0], errors.Join(err, procs.killGroup(proc)))
	}
	select {
	case <-proc.done:
	case <-time.After(most):
		return 0, "", errors.Join(fmt.Errorf("%s did not end in %s", argv[0], most), procs.killGroup(proc))
	}
	code, _ = exitCode(proc.status)
	return code, string(text), nil
}
