package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"drover/internal/durable"
)

// start brings the server up, as what it may be now.
func (n *node) start(ctx context.Context, answers []State) error {
	if !n.cfg.hasData() {
		return n.begin(ctx, answers)
	}
	timeline, _, err := n.cfg.onDisk(ctx)
	if err != nil {
		return err
	}
	_, serr := os.Stat(n.cfg.signalFile())
	was := errors.Is(serr, fs.ErrNotExist)
	if !was {
		timeline = 0 // its standby's log may be of less; it tells more when it runs
	}
	n.idle(was, timeline, 0, "it starts")
	switch decideStart(n.now(), answers) {
	case StartReplica:
		return n.serve(ctx)
	case StartRejoin:
		p, _ := primaryOf(answers)
		n.log.Warn("another member is the primary: this one, which was, follows it", "primary", p.ID)
		return n.rejoin(ctx, p)
	}
	// It has every commit that it acknowledged itself; it may go on unless a newer timeline was begun.
	me := n.now()
	me.LSN = math.MaxInt64
	if why := n.collect(ctx, me); why != "" {
		n.idle(true, timeline, 0, "it was the primary, and is not started as one: "+why)
		return nil
	}
	return n.serve(ctx)
}

// begin makes the data directory: a clone of the primary's, or, for the first member of all, a new one.
func (n *node) begin(ctx context.Context, answers []State) error {
	p, there := primaryOf(answers)
	switch {
	case there:
		n.idle(false, 0, 0, fmt.Sprintf("it is cloned from member %d", p.ID))
		err := n.cfg.make(func() error {
			// What repmgr's clone runs, without its checks: they give a connection 2 s, which an emulated processor may take to open it. It is a standby
			// before its directory counts as whole: a copy of the primary's is never taken for the primary.
			return errors.Join(n.cfg.must(ctx, "pg_basebackup", "-d", n.cfg.conninfo(p.Address), "-D", n.cfg.pgdata(), "-c", "fast", "-X", "stream"),
				n.becomeStandby(p.Address))
		})
		if err != nil {
			return err
		}
		return n.serve(ctx)
	case !n.cfg.first:
		n.idle(false, 0, 0, "it waits for a primary to be cloned from")
		return nil
	case len(answers) > 0:
		n.idle(false, 0, 0, "its volume is empty, and there are other members: it waits for a primary, and makes no second cluster")
		return nil
	}
	n.idle(false, 0, 0, "its cluster is being made")
	err := n.cfg.make(func() error {
		return n.cfg.must(ctx, "initdb", "-D", n.cfg.pgdata(), "--locale=C.UTF-8", "--encoding=UTF8", "--auth=trust", "--no-sync", "--data-checksums", "--no-instructions")
	})
	if err != nil {
		return err
	}
	return n.serve(ctx)
}

// found makes the users, the databases and repmgr's table of a new cluster. What is there already is left.
func (n *node) found(ctx context.Context) error {
	var there bool
	conn, err := local(ctx, "postgres")
	if err != nil {
		return err
	}
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'repmgr')").Scan(&there)
	conn.Close(ctx) // it was only read
	if err != nil {
		return err
	}
	if !there {
		password := quote(n.cfg.password)
		if err := execute(ctx, "postgres", "CREATE ROLE repmgr SUPERUSER LOGIN PASSWORD "+password, "CREATE ROLE app LOGIN PASSWORD "+password,
			"CREATE DATABASE app OWNER app", "CREATE DATABASE repmgr OWNER repmgr"); err != nil {
			return err
		}
	}
	return n.cfg.must(ctx, "repmgr", "-f", n.cfg.repmgrConf(), "primary", "register", "--force")
}

// serve starts the server and waits until it answers.
func (n *node) serve(ctx context.Context) error {
	if err := n.cfg.arrange(); err != nil {
		return err
	}
	n.idle(false, 0, 0, "it starts") // it may get more at once than what is known of it
	var err error
	// It belongs to the machine, not to who asked for it.
	if n.server, err = launch(n.cfg.command(context.WithoutCancel(ctx), "postgres", "-D", n.cfg.pgdata())); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	for {
		_, err := n.refresh(ctx)
		switch {
		case err == nil:
			return nil
		case n.server.ended():
			return fmt.Errorf("the server ended: %w", errors.Join(n.server.err, err))
		}
		select {
		case <-ctx.Done():
			return nil // a recovery may take its time; the next look goes on
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// rejoin makes a stopped member a replica of the primary: what it has and the primary has not is taken back. Nobody was told of that: a commit is
// acknowledged when a majority has it.
func (n *node) rejoin(ctx context.Context, p State) error {
	n.idle(false, 0, 0, fmt.Sprintf("it is made a replica of member %d", p.ID))
	// The primary's checkpoint must be one of its own timeline, or pg_rewind takes it for its old self.
	if err := n.cfg.must(ctx, "psql", "-X", "-q", n.cfg.conninfo(p.Address), "-c", "CHECKPOINT"); err != nil {
		return err
	}
	if err := os.Remove(n.cfg.signalFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := n.cfg.must(ctx, "pg_rewind", "--target-pgdata="+n.cfg.pgdata(), "--source-server="+n.cfg.conninfo(p.Address)); err != nil {
		return err
	}
	if err := n.becomeStandby(p.Address); err != nil {
		return err
	}
	return n.serve(ctx)
}

// serveGrant answers a candidate.
func (n *node) serveGrant(ctx context.Context, body []byte) (string, error) {
	var candidate State
	if err := json.Unmarshal(body, &candidate); err != nil {
		return "", err
	}
	if why := n.grant(ctx, candidate); why != "" {
		return "", errors.New(why)
	}
	return "granted", nil
}

// grant grants a candidate, or says why not. The server's own word is fresh: what was known a second ago may be too little.
func (n *node) grant(ctx context.Context, candidate State) string {
	me := n.now()
	n.voting.Lock()
	defer n.voting.Unlock()
	// It has a connection of its own: whoever acts may be waiting for this very grant.
	if me.Role != "" {
		err := connected(ctx, &n.ballot, "postgres")
		if err == nil {
			me, err = askState(ctx, n.ballot, n.cfg.self)
		}
		if err != nil {
			return fmt.Sprintf("member %d cannot ask its server what it has: %v", me.ID, err)
		}
	}
	alive := me.Role == Replica && me.Streaming && me.Upstream != candidate.Address && me.ID != candidate.ID
	if me.Role == Replica && !alive && me.ID != candidate.ID && me.Upstream != candidate.Address {
		// Who is granted has all that this voter acknowledges to anybody: from here on it acknowledges nothing to its old primary.
		if err := executeOn(ctx, n.ballot, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"); err != nil {
			return fmt.Sprintf("member %d cannot leave its primary: %v", me.ID, err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if why := grant(me, candidate, alive, n.asking, n.given, time.Now()); why != "" {
		return why
	}
	given := Given{To: candidate.ID, Until: time.Now().Add(grantFor)}
	if err := durable.WriteJSON(n.givenPath(), given, 0o644); err != nil {
		return fmt.Sprintf("member %d cannot write down whom it grants: %v", me.ID, err)
	}
	n.given = given
	n.log.Info("it grants", "to", candidate.ID)
	return ""
}

// collect asks all voters to grant this member; empty when a majority has, else why not.
func (n *node) collect(ctx context.Context, me State) string {
	ctx, cancel := context.WithTimeout(ctx, grantFor/2)
	defer cancel()
	n.mu.Lock()
	members := slices.Clone(n.members)
	n.asking = true
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.asking = false
		n.mu.Unlock()
	}()
	if len(members) == 0 {
		members = []Member{n.cfg.self}
	}
	body, err := json.Marshal(me)
	if err != nil {
		return err.Error()
	}
	answers := make(chan answer, len(members))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel() // who has not answered is not needed
	for _, m := range members {
		if !m.Voter || m.ID == me.ID {
			continue
		}
		asking.Go(func() {
			_, err := post(ctx, n.cfg, m.Address, "grant", bytes.NewReader(body))
			if err != nil {
				answers <- answer{m.ID, fmt.Sprintf("member %d: %v", m.ID, err)}
				return
			}
			answers <- answer{m.ID, ""}
		})
	}
	return count(me.ID, members, func() answer { return <-answers }, func() string { return n.grant(ctx, me) })
}

// promote makes a replica the primary, with the grants of a majority.
func (n *node) promote(ctx context.Context) (string, error) {
	n.acting.Lock()
	defer n.acting.Unlock()
	return n.promoteHeld(ctx)
}

// promoteHeld is promote for who holds acting.
func (n *node) promoteHeld(ctx context.Context) (string, error) {
	me, err := n.refresh(ctx)
	if err != nil {
		return "", err
	}
	if me.Role == Primary {
		return "it is the primary", nil
	}
	began := time.Now()
	if why := n.collect(ctx, me); why != "" {
		return "", errors.New(why)
	}
	granted := time.Since(began)
	if err := executeOn(ctx, n.conn, "SELECT pg_promote(true, 60)"); err != nil {
		return "", err
	}
	if me, err = n.refresh(ctx); err != nil || me.Role != Primary {
		return "", errors.Join(err, errors.New("the server does not become the primary"))
	}
	n.log.Info("it is the primary", "timeline", me.Timeline, "grants", granted, "dur", time.Since(began))
	n.poke(ctx)
	n.look()
	return fmt.Sprintf("member %d is the primary, timeline %d", me.ID, me.Timeline), nil
}

// handover gives the primary's role to the replica that has the most, and follows it. The server is stopped first, which sends its replicas all that
// it has: nothing is lost, and no second primary can be.
func (n *node) handover(ctx context.Context) (string, error) {
	n.acting.Lock()
	defer n.acting.Unlock()
	me, err := n.refresh(ctx)
	if err != nil {
		return "", err
	}
	if me.Role != Primary {
		return "it is not the primary", nil
	}
	heir, why := successor(me, n.ask(ctx))
	if why != "" {
		return "", fmt.Errorf("there is nobody to hand over to: %s", why)
	}
	if err := execute(ctx, "postgres", "CHECKPOINT"); err != nil { // so that the one at the stop is short
		return "", err
	}
	began := time.Now()
	if err := n.stopServer(); err != nil {
		return "", err
	}
	timeline, checkpoint, err := n.cfg.onDisk(ctx)
	if err != nil {
		return "", err
	}
	n.idle(true, timeline, checkpoint+1, fmt.Sprintf("it hands over to member %d", heir.ID))
	stopped := time.Since(began)
	if err := n.inherit(ctx, heir, checkpoint); err != nil {
		// The next look finds out who is the primary, by the rules of any start.
		return "", fmt.Errorf("member %d did not take over: %w", heir.ID, err)
	}
	n.log.Info("it has handed over", "to", heir.ID, "stopped", stopped, "dur", time.Since(began))
	if err := n.becomeStandby(heir.Address); err != nil {
		return "", err
	}
	if err := n.serve(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("member %d is the primary now, after %d ms", heir.ID, time.Since(began).Milliseconds()), nil
}

// inherit waits until the heir has the end of the log, and promotes it.
func (n *node) inherit(ctx context.Context, heir State, end uint64) error {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	for {
		// What is told is up to a second old; the grant asks for the newest.
		_, err := post(ctx, n.cfg, heir.Address, "promote", nil)
		if err == nil {
			return nil
		}
		n.log.Info("the heir is not the primary yet", "heir", heir.ID, "end", fmt.Sprintf("%X", end), "err", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}
