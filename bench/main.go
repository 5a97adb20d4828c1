package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"text/tabwriter"

	"drover"
)

func main() {
	if kind := os.Getenv(siteEnv); kind != "" {
		if err := serveSite(kind, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "site:", err)
			os.Exit(1)
		}
		return
	}
	if what := os.Getenv(stormEnv); what != "" {
		if err := serveStorm(what, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "storm:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// setup is what every bench gets.
type setup struct {
	// drover is the path of the binary.
	drover string
	// dir is an empty directory for this bench.
	dir string
	// runs is how often each side is measured.
	runs int
	// size is the data of a full volume in measureHydration.
	size drover.Bytes
	// machines is how many measureDrain drains, parallel how many at once; fillMiB is what each one's volume holds.
	machines, parallel, fillMiB int
	// hosts and fleet are how many simulated hosts and machines measureScale has.
	hosts, fleet int
	// profiles is where measureScale writes what the CPUs and the locks were used for while machines were made; empty for nowhere.
	profiles string
	// log gets a line per run.
	log io.Writer
}

// bench measures one or more things that need the same preparation.
type bench struct {
	name    string
	measure func(context.Context, setup) ([]result, error)
}

// benches lists everything, in the order in which it runs.
func benches() []bench {
	return []bench{
		{"nbd", measureNBD},
		{"hydrate", measureHydration},
		{"snapshot", measureSnapshots},
		{"cipher", measureCipher},
		{"compress", measureCompression},
		{"busy", measureBusy},
		{"move", measureMoves},
		{"drain.live", measureDrain("live")},
		{"drain.cold", measureDrain("cold")},
		{"live", measureLive},
		{"memory", measureMemory},
		{"scale", inWorld(measureScale)},
		{"start", inWorld(measureStart)},
		{"storm", inWorld(measureStorm)},
		{"vhost", measureVhost},
		{"guest", measureGuest},
		{"guest-restart", measureRestart},
		{"mesh", measureMesh},
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	pattern := flags.String("run", ".", "run the benches whose name matches")
	runs := flags.Int("runs", 3, "measure each side so many times")
	binary := flags.String("drover", "bin/drover", "the drover binary")
	gib := flags.Int("hydrate-gib", 2, "hydrate a full volume of so many GiB; 8 is the size that the goals name")
	machines := flags.Int("machines", 10, "drain a host with so many machines")
	parallel := flags.Int("parallel", 2, "move so many of them at once")
	fill := flags.Int("fill", 256, "give each of them a volume of 1 GiB with so many MiB in it")
	hosts := flags.Int("hosts", 1000, "fill a fleet of so many simulated hosts")
	fleet := flags.Int("fleet", 50_000, "with so many machines")
	profiles := flags.String("profiles", "", "write profiles of the simulated fleet into this directory while its machines are made: cpu, mutex, block, heap")
	if err := flags.Parse(args); err != nil {
		return err
	}
	match, err := regexp.Compile(*pattern)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(*binary)
	if err != nil {
		return err
	}
	var all []result
	var failed []error
	for _, b := range benches() {
		if !match.MatchString(b.name) {
			continue
		}
		results, err := inDir(ctx, b, setup{drover: path, runs: *runs, size: drover.Bytes(*gib) * drover.GiB, machines: *machines,
			parallel: *parallel, fillMiB: *fill, hosts: *hosts, fleet: *fleet, profiles: *profiles, log: stderr})
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", b.name, err))
			fmt.Fprintln(stderr, "bench:", failed[len(failed)-1])
		}
		all = append(all, results...)
	}
	print(stdout, all)
	return errors.Join(failed...)
}

// inDir runs a bench in a directory of its own and removes it.
func inDir(ctx context.Context, b bench, s setup) (results []result, err error) {
	if s.dir, err = os.MkdirTemp("", "drover-bench-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	fmt.Fprintf(s.log, "== %s\n", b.name)
	return b.measure(ctx, s)
}

func print(out io.Writer, all []result) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "bench\tdrover\tpeer\tunit\tratio\tbetter\tpeer is\t")
	for _, r := range all {
		fmt.Fprintf(table, "%s\t%.4g\t%.4g\t%s\t%.3f\t%s\t%s\t\n", r.Bench, r.Drover, r.Peer, r.Unit, r.Ratio, r.Better, r.PeerName)
	}
	table.Flush()
	encoder := json.NewEncoder(out)
	for _, r := range all {
		encoder.Encode(r)
	}
}
