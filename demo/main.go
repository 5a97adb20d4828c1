package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"drover/internal/testkit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "directory with drover and writer")
	fill := flags.Int("fill", 600, "MiB of checksummed records on the volume")
	keep := flags.Bool("keep", false, "leave the fleet running at the end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	path, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "drover-demo-")
	if err != nil {
		return err
	}
	cli := testkit.CLI{Bin: filepath.Join(path, "drover"), Dir: filepath.Join(dir, "fleet"), Stderr: os.Stderr}
	s := &stage{bin: path, dir: dir, cli: cli, fillMiB: *fill, out: os.Stdout}
	if !*keep {
		defer func() {
			// The curtain falls even after a Ctrl-C or a failure.
			err = errors.Join(err, s.curtain(context.WithoutCancel(ctx)))
			if err == nil {
				err = s.verdict()
			}
		}()
	}
	if err := s.play(ctx); err != nil {
		s.showLogs()
		return err
	}
	if *keep {
		fmt.Fprintf(s.out, "\nThe fleet is still up: drover --dir %s ...; end it with: drover dev down --purge --dir %s\n", s.cli.Dir, s.cli.Dir)
		return s.verdict()
	}
	return nil
}
