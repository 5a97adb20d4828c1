package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"drover/internal/testkit"
)

// stage is the fleet of the demo, and the means to type commands at it.
type stage struct {
	bin     string
	dir     string
	cli     testkit.CLI
	fillMiB int
	out     io.Writer
	machine string
	watch   *testkit.Watch
	report  report
	began   time.Time
	// stopWatching ends the watch and waits for it; nil before it began.
	stopWatching func()
}

// say prints a line of narration.
func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(s.out, "\n[%5.1f s] %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// typed shows a command as a user would type it, runs it, and lets its output through.
func (s *stage) typed(ctx context.Context, args ...string) error {
	fmt.Fprintf(s.out, "$ drover %s\n", testkit.Words(args))
	return s.cli.Run(ctx, s.out, args...)
}

// showLogs prints the end of each host's logs, for whoever has to find out why the demo failed.
func (s *stage) showLogs() {
	logs, _ := filepath.Glob(filepath.Join(s.cli.Dir, "hosts", "*", "log", "*.log"))
	for _, path := range logs {
		content, err := os.ReadFile(path)
		if err != nil || len(content) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
		fmt.Fprintf(os.Stderr, "--- %s\n%s\n", path, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}
