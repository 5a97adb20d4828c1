package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"drover"
	"drover/demo/image"
	"drover/internal/testkit"
)

const (
	volumeGiB = 2
	boundBoot = time.Minute
)

// play does the whole demo up to the comparison.
func (s *stage) play(ctx context.Context) error {
	s.began = time.Now()
	for _, scene := range []func(context.Context) error{
		s.raiseFleet, s.startMachine, s.fill, s.firstMove, s.moveUnderKill, s.powerCut, s.compare,
	} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) raiseFleet(ctx context.Context) error {
	s.say("A fleet on this machine: three worker hosts in two regions and a control host, each a process tree of its own.")
	if err := s.typed(ctx, "dev", "up", "--api-port", "0"); err != nil {
		return err
	}
	if err := s.typed(ctx, "host", "list"); err != nil {
		return err
	}
	var hosts []drover.HostInfo
	if err := s.cli.Ask(ctx, &hosts, "host", "list"); err != nil {
		return err
	}
	for _, h := range hosts {
		if h.Accel != "" {
			s.report.Accel = string(h.Accel)
		}
	}
	return nil
}

func (s *stage) startMachine(ctx context.Context) error {
	layout := filepath.Join(s.dir, "image")
	s.say("An image: Debian's busybox and a program that appends numbered, checksummed, fsynced records for ever.")
	if err := image.WriteLayout(layout, image.Spec{
		Programs: map[string]string{"writer": filepath.Join(s.bin, "writer")},
		Config:   v1.Config{Entrypoint: []string{"/writer"}, Env: []string{"PATH=/bin"}},
	}); err != nil {
		return err
	}
	if err := s.typed(ctx, "app", "create", "demo"); err != nil {
		return err
	}
	if err := s.typed(ctx, "volume", "create", "records", "--app", "demo", "--region", "ams", "--size", fmt.Sprintf("%dGiB", volumeGiB)); err != nil {
		return err
	}
	var volumes []struct {
		ID string `json:"id"`
	}
	if err := s.cli.Ask(ctx, &volumes, "volume", "list", "--app", "demo"); err != nil {
		return err
	}
	if len(volumes) != 1 {
		return fmt.Errorf("the app has %d volumes, not 1", len(volumes))
	}
	s.report.VolumeBytes = volumeGiB << 30
	s.say("A machine: a real virtual machine with its own kernel, the volume at /data.")
	if err := s.typed(ctx, "machine", "create", "oci:"+layout, "--app", "demo", "--name", "writer", "--region", "ams",
		"--volume", volumes[0].ID+":/data", "--", "run", "-fill", strconv.Itoa(s.fillMiB)); err != nil {
		return err
	}
	var machines []struct {
		ID string `json:"id"`
	}
	if err := s.cli.Ask(ctx, &machines, "machine", "list", "--app", "demo"); err != nil {
		return err
	}
	if len(machines) != 1 {
		return fmt.Errorf("the app has %d machines, not 1", len(machines))
	}
	s.machine = machines[0].ID
	s.watch = testkit.NewWatch(s.cli.Dir, s.machine)
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.watch.Run(watching)
	}()
	s.stopWatching = func() { stop(); <-done }
	return s.typed(ctx, "machine", "list", "--app", "demo")
}

// fill waits until the volume holds what it should, with progress.
func (s *stage) fill(ctx context.Context) error {
	s.say("It fills its volume with %d MiB of checksummed blocks and acknowledges every record it has made durable.", s.fillMiB)
	total := uint64(s.fillMiB) << 20 / 4096
	began, shown := time.Now(), time.Time{}
	err := testkit.Eventually(ctx, 3*time.Minute, "the fill", func() (bool, error) {
		now := s.watch.Now()
		if time.Since(shown) > 2*time.Second || now.Filled >= total {
			shown = time.Now()
			rate := float64(now.Filled) / 256 / time.Since(began).Seconds()
			left := ""
			if now.Filled > 0 && now.Filled < total {
				left = fmt.Sprintf(", %.0f s left", float64(total-now.Filled)/256/rate)
			}
			fmt.Fprintf(s.out, "  %4d of %d MiB, %.0f MiB/s%s; %d records acknowledged\n", now.Filled/256, s.fillMiB, rate, left, now.Acked)
		}
		return now.Filled >= total, now.Err
	})
	if err != nil {
		return err
	}
	return s.typed(ctx, "machine", "exec", s.machine, "--", "df", "-h", "/data")
}

// place returns where the machine is, and the other worker hosts.
func (s *stage) place(ctx context.Context) (here string, others []string, err error) {
	var machine struct {
		Host string `json:"host"`
	}
	if err := s.cli.Ask(ctx, &machine, "machine", "show", s.machine); err != nil {
		return "", nil, err
	}
	var hosts []drover.HostInfo
	if err := s.cli.Ask(ctx, &hosts, "host", "list"); err != nil {
		return "", nil, err
	}
	for _, h := range hosts {
		if h.Accel != "" && string(h.ID) != machine.Host {
			others = append(others, string(h.ID))
		}
	}
	if len(others) == 0 {
		return "", nil, errors.New("there is no other worker host to move to")
	}
	return machine.Host, others, nil
}

func (s *stage) firstMove(ctx context.Context) error {
	here, others, err := s.place(ctx)
	if err != nil {
		return err
	}
	s.say("Now it moves from %s to %s, disk and all, while it writes.", here, others[0])
	before := s.watch.Now()
	s.watch.ResetGap()
	if err := s.typed(ctx, "machine", "move", s.machine, "--to", others[0], "--switch", "early"); err != nil {
		return err
	}
	m, err := s.lastMigration(ctx)
	if err != nil {
		return err
	}
	if err := s.awaitNewRun(ctx, before.Boot); err != nil {
		return err
	}
	if err := s.typed(ctx, "migration", "show", string(m.ID)); err != nil {
		return err
	}
	s.noteMove()
	for _, step := range m.Steps {
		switch step.Phase {
		case drover.PhaseSwitch:
			s.report.SwitchToRunningMS = m.RunningAt.Sub(step.EndedAt).Milliseconds()
		case drover.PhaseHydrate:
			s.report.HydrateSeconds = step.EndedAt.Sub(step.StartedAt).Seconds()
			s.report.BootedBeforeCopied = m.RunningAt.Before(step.EndedAt)
		}
	}
	for _, d := range m.Disks {
		s.report.AllocatedBytes += int64(d.Allocated)
	}
	if m.Hydration != nil {
		s.report.CopiedBytes = int64(m.Hydration.Copied)
	}
	s.report.InterruptionMS = s.report.InterruptionsMS[0]
	fmt.Fprintf(s.out, "  From outside: no acknowledgement for %d ms.\n", s.report.InterruptionMS)
	return nil
}

func (s *stage) moveUnderKill(ctx context.Context) error {
	here, others, err := s.place(ctx)
	if err != nil {
		return err
	}
	target := others[len(others)-1]
	s.say("Again, from %s to %s, and the agent of %s is killed with SIGKILL in the middle.", here, target, here)
	before := s.watch.Now()
	s.watch.ResetGap()
	// The fault strikes at the worst moment: the source has frozen its copy, nobody knows whether the placement has changed.
	if err := s.typed(ctx, "dev", "fault", here, "host.freeze.after"); err != nil {
		return err
	}
	if err := s.typed(ctx, "machine", "move", s.machine, "--to", target, "--switch", "early"); err != nil {
		return err
	}
	m, err := s.lastMigration(ctx)
	if err != nil {
		return err
	}
	if err := s.awaitNewRun(ctx, before.Boot); err != nil {
		return err
	}
	if err := s.typed(ctx, "migration", "show", string(m.ID)); err != nil {
		return err
	}
	s.noteMove()
	return nil
}

func (s *stage) powerCut(ctx context.Context) error {
	here, _, err := s.place(ctx)
	if err != nil {
		return err
	}
	s.say("The power of %s is cut: every process of it dies at once, the VM and the storage daemon too. Then it comes back.", here)
	before := s.watch.Now()
	s.watch.ResetGap()
	if err := s.typed(ctx, "dev", "kill", here); err != nil {
		return err
	}
	if err := s.typed(ctx, "dev", "start", here); err != nil {
		return err
	}
	if err := s.awaitNewRun(ctx, before.Boot); err != nil {
		return err
	}
	s.report.PowerCutGapMS = s.watch.Now().Gap.Milliseconds()
	return s.typed(ctx, "machine", "events", s.machine)
}

// compare reads everything back inside the machine and compares it with what was acknowledged outside.
func (s *stage) compare(ctx context.Context) error {
	s.say("Is everything there? Every block is read back and every record compared with what was acknowledged outside.")
	outside := s.watch.Now()
	var printed struct {
		Stdout   string `json:"stdout"`
		ExitCode int    `json:"exit_code"`
		Stderr   string `json:"stderr"`
	}
	if err := s.cli.Ask(ctx, &printed, "machine", "exec", s.machine, "--timeout", "120s", "--", "/writer", "verify"); err != nil {
		return err
	}
	var inside struct {
		Records    uint64 `json:"records"`
		BadRecords uint64 `json:"bad_records"`
		Blocks     uint64 `json:"blocks"`
		BadBlocks  uint64 `json:"bad_blocks"`
	}
	if err := json.Unmarshal([]byte(strings.TrimSpace(printed.Stdout)), &inside); err != nil {
		return fmt.Errorf("verify printed %q and %q: %w", printed.Stdout, printed.Stderr, err)
	}
	s.stopWatching()
	end := s.watch.Now()
	s.report.Acked = outside.Acked
	if inside.Records < outside.Acked {
		s.report.Lost += outside.Acked - inside.Records
	}
	if inside.Blocks < outside.Filled {
		s.report.Lost += outside.Filled - inside.Blocks
	}
	s.report.Corrupt = inside.BadRecords + inside.BadBlocks + uint64(len(end.Corrupt))
	s.report.TwoRunners = end.TwoRunners
	s.report.Lost += end.Lost
	fmt.Fprintf(s.out, "  outside: %d records acknowledged, %d blocks\n  inside:  %d records, %d of them bad; %d blocks, %d of them bad\n",
		outside.Acked, outside.Filled, inside.Records, inside.BadRecords, inside.Blocks, inside.BadBlocks)
	return end.Err
}

// awaitNewRun waits until the machine acknowledges records in another run than before.
func (s *stage) awaitNewRun(ctx context.Context, before string) error {
	return testkit.Eventually(ctx, boundBoot, "the machine's return", func() (bool, error) {
		now := s.watch.Now()
		return now.Boot != before, now.Err
	})
}

// lastMigration returns the machine's newest migration, which must have succeeded.
func (s *stage) lastMigration(ctx context.Context) (drover.Migration, error) {
	var all []drover.Migration
	if err := s.cli.Ask(ctx, &all, "migration", "list"); err != nil {
		return drover.Migration{}, err
	}
	var last drover.Migration
	for _, m := range all {
		if string(m.Machine) == s.machine && m.CreatedAt.After(last.CreatedAt) {
			last = m
		}
	}
	if last.Outcome != drover.Succeeded {
		return last, fmt.Errorf("migration %s ended as %q", last.ID, last.Outcome)
	}
	return last, nil
}

// noteMove counts a move and the longest gap around it.
func (s *stage) noteMove() {
	s.report.Moves++
	s.report.InterruptionsMS = append(s.report.InterruptionsMS, s.watch.Now().Gap.Milliseconds())
}

// curtain takes the fleet down and removes everything.
func (s *stage) curtain(ctx context.Context) error {
	if s.stopWatching != nil {
		s.stopWatching()
	}
	s.say("The fleet goes down and leaves nothing behind.")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := s.typed(ctx, "dev", "down", "--purge")
	return errors.Join(err, os.RemoveAll(s.dir))
}
