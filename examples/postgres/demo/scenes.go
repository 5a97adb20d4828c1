package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover"
	"drover/apiv1"
)

// play does the whole demo up to the comparison.
func (s *stage) play(ctx context.Context) error {
	for _, scene := range []func(context.Context) error{s.raiseFleet, s.makeCluster, s.gather, s.beginLoad, s.drainAll, s.compare} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) raiseFleet(ctx context.Context) error {
	s.say("A fleet on this machine: four worker hosts in ams, one of them to spare, one in fra, and a control host, each a process tree of its own.")
	return s.typed(ctx, "dev", "up", "--workers", "5", "--regions", "ams,ams,ams,ams,fra", "--api-port", "0", "--boot-timeout", "5m")
}

func (s *stage) makeCluster(ctx context.Context) error {
	s.say("An app with a password, and four machines with a volume each: pg1 makes a cluster, the others are cloned from it; pg4 is a reader in another region.")
	all, err := s.members(ctx)
	if drover.Is(err, drover.NotFound) || len(all) == 0 {
		if err := s.typed(ctx, "app", "create", "pg"); err != nil {
			return err
		}
		err = s.cli.Run(ctx, os.Stdout, "secrets", "set", "--app", "pg", "PG_PASSWORD="+password)
	}
	if err != nil {
		return err
	}
	fresh := len(all) == 0
	for i, host := range []string{"h1", "h2", "h3", readerHost} {
		name := fmt.Sprintf("pg%d", i+1)
		if slices.ContainsFunc(all, func(m apiv1.Machine) bool { return m.Name == name }) {
			continue
		}
		env := map[string]string{}
		if i == 0 {
			env["PG_FIRST"] = "1"
		}
		if err := s.member(ctx, name, host, env); err != nil {
			return err
		}
		// One after another: emulated guests that all boot at once take longer.
		if err := s.await(ctx, i+1); err != nil {
			return err
		}
	}
	if all, err = s.members(ctx); err != nil {
		return err
	}
	s.addresses = make([]string, len(all))
	for _, m := range all {
		n, err := strconv.Atoi(strings.TrimPrefix(m.Name, "pg"))
		if err != nil || n < 1 || n > len(all) {
			return fmt.Errorf("machine %s has an unexpected name %q", m.ID, m.Name)
		}
		s.addresses[n-1] = m.PrivateIP
	}
	if err := s.await(ctx, len(all)); err != nil || !fresh {
		return err
	}
	return s.healthy(ctx)
}

// gather brings two members onto one host, for the variant that shows what a drain does then.
func (s *stage) gather(ctx context.Context) error {
	if s.variant != "two-on-one" {
		return nil
	}
	p, err := s.awaitPrimary(ctx)
	if err != nil {
		return err
	}
	all, err := s.members(ctx)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Region == p.Region && m.ID != p.ID {
			s.say("Replica %s comes to host %s, where the primary %s is.", m.Name, p.Host, p.Name)
			if m.Host != p.Host {
				err = s.typed(ctx, "machine", "move", string(m.ID), "--to", string(p.Host), "--live-or-cold")
			}
			return errors.Join(err, s.await(ctx, 4))
		}
	}
	return fmt.Errorf("there is no replica in region %s", p.Region)
}

func (s *stage) beginLoad(ctx context.Context) error {
	s.say("A client on host %s writes to %s, and records every commit that is acknowledged.", readerHost, strings.Join(s.addresses[:3], ", "))
	if err := s.startLoad(ctx); err != nil {
		return err
	}
	timeline, err := s.askTimeline(ctx)
	s.timeline = timeline
	s.rec.mark()
	return err
}

// askTimeline asks the primary which timeline it is on: each switch of the primary begins one.
func (s *stage) askTimeline(ctx context.Context) (int, error) {
	m, err := s.awaitPrimary(ctx)
	if err != nil {
		return 0, err
	}
	text, err := s.inside(ctx, m.ID, "psql", "-XAtc", "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int", "postgres")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(text))
}

// next chooses the host that is drained next: one that was not yet, the primary's last.
func (s *stage) next(ctx context.Context, done map[drover.HostID]bool) (drover.HostID, error) {
	m, err := s.awaitPrimary(ctx)
	if err != nil {
		return "", err
	}
	for _, h := range []drover.HostID{"h1", "h2", "h3"} {
		if s.variant == "two-on-one" && len(done) == 0 {
			return m.Host, nil // with both that are there
		}
		if !done[h] && (h != m.Host || len(done) == 2) {
			return h, nil
		}
	}
	return m.Host, nil
}

func (s *stage) drainAll(ctx context.Context) error {
	if s.variant == "powercut" {
		s.say("A power cut is to come. In %v.", s.cut)
	}
	done := map[drover.HostID]bool{}
	for len(done) < 3 {
		if err := s.await(ctx, 4); err != nil {
			return err
		}
		host, err := s.next(ctx, done)
		if err != nil {
			return err
		}
		done[host] = true
		if err := s.drain(ctx, host, s.variant == "powercut" && len(done) == s.cut.drain); err != nil {
			return err
		}
	}
	return nil
}

// drain empties a host while the client writes, and prints how long nothing was acknowledged.
func (s *stage) drain(ctx context.Context, host drover.HostID, cut bool) error {
	s.say("Host %s is drained.", host)
	if err := s.written(ctx, 20); err != nil {
		return err
	}
	s.rec.mark()
	args := []string{"host", "drain", string(host), "--reason", "the demo", "--min-healthy", "3s", "--healthy-deadline", "10m"}
	if s.variant == "cold" || s.variant == "powercut" {
		args = append(args, "--cold")
	}
	if cut {
		if err := s.drainWithPowerCut(ctx, args); err != nil {
			return err
		}
	} else if err := s.typed(ctx, args...); err != nil {
		return err
	}
	var drains []apiv1.Drain
	if err := s.cli.Ask(ctx, &drains, "drain", "list"); err != nil {
		return err
	}
	last := drains[0]
	for _, d := range drains {
		if d.CreatedAt.After(last.CreatedAt) {
			last = d
		}
	}
	s.report.Moves += last.Totals.Moved
	for _, i := range last.Items {
		fmt.Printf("  %s went to %s %s, was interrupted for %.2f s\n", i.Name, i.Target, how(i.Live), time.Duration(i.Interruption).Seconds())
	}
	if err := s.written(ctx, 20); err != nil {
		return err
	}
	gap, ever := s.rec.gaps(time.Now())
	s.report.WriteGapMSMax = ever.took.Milliseconds()
	fmt.Printf("  %d commits so far; the longest time without one: %v\n", s.rec.total(), gap)
	return s.typed(ctx, "host", "uncordon", string(host))
}

func how(live bool) string {
	if live {
		return "live"
	}
	return "cold"
}

// drainWithPowerCut cuts the power of a host in the middle of a drain, the primary's as a rule, and gives it back when commits are acknowledged again.
func (s *stage) drainWithPowerCut(ctx context.Context, args []string) error {
	if _, err := s.awaitPrimary(ctx); err != nil {
		return err
	}
	if err := s.typed(ctx, append(args, "--detach")...); err != nil {
		return err
	}
	var drain apiv1.Drain
	if err := s.lastDrain(ctx, &drain, "begins to move", func() bool { return drain.Totals.InFlight > 0 || drain.Totals.Moved > 0 }); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.cut.after):
	}
	host, err := s.powerless(ctx)
	if err != nil {
		return err
	}
	if err := s.typed(ctx, "dev", "kill", string(host)); err != nil {
		return err
	}
	if err := s.written(ctx, 20); err != nil {
		return err
	}
	gap, _ := s.rec.gaps(time.Now())
	s.say("Writes are acknowledged again, after %d ms at most. The host gets its power back.", gap.took.Milliseconds())
	if err := s.typed(ctx, "dev", "start", string(host)); err != nil {
		return err
	}
	if err := s.lastDrain(ctx, &drain, "ends", func() bool { return drain.Ended() }); err != nil {
		return err
	}
	if drain.State != drover.DrainDone {
		return fmt.Errorf("drain %s is %s: %v", drain.ID, drain.State, drain.Problem)
	}
	return s.await(ctx, 4)
}

// powerless says which host loses its power now.
func (s *stage) powerless(ctx context.Context) (drover.HostID, error) {
	if s.cut.host != "" {
		s.say("The power of host %s is cut.", s.cut.host)
		return s.cut.host, nil
	}
	m, err := s.awaitPrimary(ctx)
	if err != nil {
		return "", err
	}
	s.say("The power of host %s is cut, with the primary %s.", m.Host, m.Name)
	return m.Host, nil
}

// lastDrain waits until the drain that is under way is as it should be.
func (s *stage) lastDrain(ctx context.Context, into *apiv1.Drain, what string, ok func() bool) error {
	return eventually(ctx, boundCluster, "the drain "+what, func() (bool, error) {
		var all []apiv1.Drain
		if err := s.cli.Ask(ctx, &all, "drain", "list"); err != nil {
			return false, nil // the API may be slow to answer on a busy machine; the bound counts
		}
		*into = apiv1.Drain{}
		for _, d := range all {
			if d.CreatedAt.After(into.CreatedAt) {
				*into = d
			}
		}
		return ok(), nil
	})
}

// healthy asks repmgr.
func (s *stage) healthy(ctx context.Context) error {
	s.report.Cluster = "unknown"
	return eventually(ctx, boundCluster, "a cluster that repmgr finds healthy", func() (bool, error) {
		m, err := s.awaitPrimary(ctx)
		if err != nil {
			return false, err
		}
		text, err := s.inside(ctx, m.ID, "repmgr", "-f", "/data/repmgr.conf", "cluster", "show", "--csv")
		if err != nil {
			fmt.Printf("  %v\n", err)
			return false, nil // a member may be on its way back; the bound counts
		}
		nodes, err := parseCluster(text)
		if err != nil {
			return false, err
		}
		if s.report.Cluster = sick(nodes, 4); s.report.Cluster != "" {
			return false, nil
		}
		s.report.Cluster = "healthy"
		_, err = s.inside(ctx, m.ID, "repmgr", "-f", "/data/repmgr.conf", "cluster", "show")
		return err == nil, nil
	})
}

// compare looks whether everything that was acknowledged is there, and sound.
func (s *stage) compare(ctx context.Context) error {
	s.say("The client stops. Is everything there that was acknowledged?")
	if err := s.await(ctx, 4); err != nil {
		return err
	}
	timeline, err := s.askTimeline(ctx)
	if err != nil {
		return err
	}
	s.report.Switchovers = timeline - s.timeline
	if err := s.stopLoad(); err != nil {
		return err
	}
	list, err := s.client(ctx, "list").Output()
	if err != nil {
		return err
	}
	there := map[int64]bool{}
	for line := range strings.Lines(string(list)) {
		id, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return err
		}
		there[id] = true
	}
	lost := s.rec.missing(there)
	s.report.CommitsAcked, s.report.CommitsLost = s.rec.total(), len(lost)
	fmt.Printf("  %d commits acknowledged, %d rows there, %d lost %v\n", s.rec.total(), len(there), len(lost), lost[:min(len(lost), 10)])
	if err := s.healthy(ctx); err != nil {
		return err
	}
	return s.check(ctx)
}

// check looks at every page of every member: at the primary first, which makes the extension that the replicas have from it.
func (s *stage) check(ctx context.Context) error {
	p, err := s.awaitPrimary(ctx)
	if err != nil {
		return err
	}
	all, err := s.members(ctx)
	if err != nil {
		return err
	}
	all = append([]apiv1.Machine{p}, slices.DeleteFunc(all, func(m apiv1.Machine) bool { return m.ID == p.ID })...)
	s.report.Amcheck = "clean"
	for _, m := range all {
		args := []string{"pg_amcheck", "--heapallindexed", "-d", "app", "-d", "repmgr"}
		if m.ID == p.ID {
			args = append(args, "--install-missing")
		}
		if _, err := s.inside(ctx, m.ID, args...); err != nil {
			s.report.Amcheck = fmt.Sprintf("%s: %v", m.Name, err)
		}
	}
	return nil
}
