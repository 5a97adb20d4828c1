package main

import (
	"bufio"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"drover"
)

// each calls the function with every command of the tree.
func each(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, sub := range cmd.Commands() {
		each(sub, do)
	}
}

// TestHelpTeaches: a command that does something has an example that names it, and help that fits a terminal.
func TestHelpTeaches(t *testing.T) {
	for _, noun := range []*cobra.Command{newAppCommand(&cli{}), newMachineCommand(&cli{}), newVolumeCommand(&cli{}), newHostCommand(&cli{}), newMigrationCommand(&cli{}),
		newRecoveryCommand(&cli{})} {
		root := &cobra.Command{Use: "drover"}
		root.AddCommand(noun)
		each(noun, func(cmd *cobra.Command) {
			if cmd.Short == "" || (!cmd.HasSubCommands() && !strings.Contains(cmd.Example, cmd.CommandPath())) {
				t.Errorf("%s has no short help, or no example that names it", cmd.CommandPath())
			}
			for line := range strings.Lines(cmd.Long) {
				if len(line) > 81 {
					t.Errorf("%s: this line of its help is %d wide: %s", cmd.CommandPath(), len(line)-1, line)
				}
			}
		})
	}
}

func TestMainIsSmall(t *testing.T) {
	f, err := os.Open("main.go")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		lines++
	}
	if lines > 80 {
		t.Errorf("main.go has %d lines", lines)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]drover.Bytes{"512": 512 * drover.MiB, "512MB": 512 * drover.MiB, "512MiB": 512 * drover.MiB, "512m": 512 * drover.MiB,
		"1GiB": drover.GiB, "1.5G": 3 * drover.GiB / 2, "2 GB": 2 * drover.GiB, "4096B": 4096, "1tib": 1024 * drover.GiB} {
		if got, err := parseSize(text, drover.MiB); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MB", "-1", "0", "1XB", "1MBB", "NaN", "Inf", "1e30G", "5 5"} {
		if got, err := parseSize(text, drover.MiB); !drover.Is(err, drover.Invalid) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for size, want := range map[drover.Bytes]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.50 KiB", 10*drover.MiB + 1: "10.0 MiB", 2 * drover.GiB: "2 GiB",
		1<<20 - 1: "1.00 MiB", 600*drover.MiB + 5: "600 MiB"} {
		if got := sizeText(size); got != want {
			t.Errorf("%d: %q, want %q", size, got, want)
		}
	}
}

func TestTimes(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0 ms", 999 * time.Millisecond: "999 ms", 3210 * time.Millisecond: "3.21 s", 65 * time.Second: "1m05s",
		3*time.Hour + 4*time.Minute: "3h04m", -time.Second: "-1.00 s"} {
		if got := durationText(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	c := &cli{environment: environment{now: testNow}}
	for ago, want := range map[time.Duration]string{-time.Hour: "0s", 5 * time.Second: "5s", 5 * time.Minute: "5m", 5 * time.Hour: "5h", 72 * time.Hour: "3d"} {
		if got := c.age(testNow().Add(-ago)); got != want {
			t.Errorf("%v ago: %q, want %q", ago, got, want)
		}
	}
	if c.age(time.Time{}) != "-" || c.moment(time.Time{}) != "" {
		t.Error("a time that is not known")
	}
}

func TestHydrationTexts(t *testing.T) {
	for _, c := range []struct {
		h    *drover.Hydration
		want string
	}{
		{nil, ""},
		{&drover.Hydration{Copied: drover.MiB}, "1 MiB copied, 0 B/s"},
		{&drover.Hydration{Total: 10 * drover.MiB, TotalKnown: true, Copied: drover.MiB}, "10 %, 1 MiB of 10 MiB, 0 B/s"},
		{&drover.Hydration{Total: 10 * drover.MiB, TotalKnown: true, Copied: 10 * drover.MiB, BytesPerSecond: drover.MiB}, "99 %, 10 MiB of 10 MiB, 1 MiB/s, about 0 s left"},
		{&drover.Hydration{Total: 1 << 50, TotalKnown: true, BytesPerSecond: 1}, "0 %, 0 B of 1 PiB, 1 B/s, about 27777h46m left"},
		{&drover.Hydration{Total: 10 * drover.MiB, TotalKnown: true, Copied: drover.MiB, Paused: true}, "1 MiB of 10 MiB, paused"},
		{&drover.Hydration{Total: 10 * drover.MiB, Copied: drover.MiB, Stalled: true, Waiting: "no answer"}, "1 MiB of 10 MiB, stalled: no answer"},
		{&drover.Hydration{Total: 10 * drover.MiB, Copied: drover.MiB, Stalled: true}, "1 MiB of 10 MiB, stalled"},
		{&drover.Hydration{Copied: drover.MiB, Limit: drover.MiB}, "1 MiB copied, 0 B/s, limit 1 MiB/s"},
		{&drover.Hydration{Total: drover.MiB, Copied: drover.MiB, Done: true}, "complete, 1 MiB copied"},
	} {
		if got := hydrationText(c.h); got != c.want {
			t.Errorf("%+v: %q, want %q", c.h, got, c.want)
		}
	}
}
