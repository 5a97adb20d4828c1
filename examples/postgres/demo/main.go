package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"drover"
	"drover/internal/testkit"
)

// variants are the ways to show it.
var variants = []string{"live", "cold", "powercut", "two-on-one"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo-postgres:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("demo-postgres", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "directory with drover and pgload")
	image := flags.String("image", "build/postgres/image", "the image's folder")
	variant := flags.String("variant", "live", "live, cold (moves), powercut (of a host, in the middle of a drain) or two-on-one (two members on one host)")
	seed := flags.Uint64("seed", 0, "of the variant powercut: which host loses its power when; 0 is the primary's, as soon as the second drain moves something")
	keep := flags.Bool("keep", false, "leave the fleet running at the end")
	fleet := flags.String("fleet", "", "directory of the fleet that an earlier run kept: what is there of the cluster is not made again")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !slices.Contains(variants, *variant) {
		return fmt.Errorf("there is no variant %q: use one of %v", *variant, variants)
	}
	path, err1 := filepath.Abs(*bin)
	layout, err2 := filepath.Abs(*image)
	dir, err3 := os.MkdirTemp("", "drover-postgres-")
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	s := &stage{bin: path, image: "oci:" + layout, dir: dir, variant: *variant, cut: cutOf(*seed, []drover.HostID{"h1", "h2", "h3", "h4"}), rec: newRecorder(), began: time.Now(),
		cli: testkit.CLI{Bin: filepath.Join(path, "drover"), Dir: filepath.Join(dir, "fleet"), Stderr: os.Stderr}}
	if *fleet != "" {
		s.cli.Dir, *keep = *fleet, true
	}
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
		err = errors.Join(err, s.stopLoad())
		if ctx.Err() == nil {
			s.showLogs(ctx)
		}
		return err
	}
	if *keep {
		fmt.Printf("\nThe fleet is still up: drover --dir %s ...; end it with: drover dev down --purge --dir %s\n", s.cli.Dir, s.cli.Dir)
		return s.verdict()
	}
	return nil
}

// report is the last line.
type report struct {
	Moves         int    `json:"moves"`
	CommitsAcked  int    `json:"commits_acked"`
	CommitsLost   int    `json:"commits_lost"`
	WriteGapMSMax int64  `json:"write_gap_ms_max"`
	Switchovers   int    `json:"switchovers"`
	Amcheck       string `json:"amcheck"`
	Cluster       string `json:"cluster"`
}

// verdict prints the report, and makes an error of what must not be.
func (s *stage) verdict() error {
	line, err := json.Marshal(s.report)
	if err != nil {
		return err
	}
	fmt.Printf("\n%s\n", line)
	if s.report.CommitsLost > 0 || s.report.Amcheck != "clean" || s.report.Cluster != "healthy" {
		return errors.New("the cluster did not keep what it promised")
	}
	return nil
}
