package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"drover/internal/durable"
)

// Times of the loop: how often the own server and the others are asked, and how long a replica may not stream from a primary that is there before its
// log is taken for one that has gone another way.
const (
	lookEvery  = 2 * time.Second
	lostBound  = 30 * time.Second
	stopBound  = time.Minute
	startBound = 2 * time.Minute
)

// node is the main process of a member.
type node struct {
	cfg config
	log *slog.Logger
	// looks wakes the loop before its time.
	looks chan struct{}

	// acting is held by whoever changes what the server is: one at a time. It comes before mu.
	acting sync.Mutex
	server *process
	daemon *process // repmgrd
	// followed is whom repmgrd was started to follow.
	followed string
	// conn and table are connections to the server, for questions: to the database postgres, and to repmgr's.
	conn, table *pgx.Conn
	// voting is held while this voter thinks of a grant; ballot is its connection for that. It may come after acting, and before mu.
	voting sync.Mutex
	ballot *pgx.Conn
	// lostAt is since when a replica does not stream from the primary that there is, orphanAt since when there is none.
	lostAt, orphanAt time.Time

	mu sync.Mutex
	// asking: it asks others for grants.
	asking  bool
	state   State
	members []Member
	answers []State
	given   Given
}

func newNode(cfg config, log *slog.Logger) *node {
	return &node{cfg: cfg, log: log, looks: make(chan struct{}, 1), state: State{Member: cfg.self, Problem: "it starts"}}
}

func (n *node) now() State {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

func (n *node) set(s State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state.Role != s.Role || n.state.Upstream != s.Upstream || n.state.Problem != s.Problem {
		n.log.Info("member is", "role", s.Role, "timeline", s.Timeline, "upstream", s.Upstream, "streams", s.Streaming, "problem", s.Problem)
	}
	n.state = s
}

// idle says that there is no server, and why.
func (n *node) idle(was bool, timeline uint32, lsn uint64, why string) {
	n.set(State{Member: n.cfg.self, WasPrimary: was, Timeline: timeline, LSN: lsn, Problem: why})
}

// look wakes the loop.
func (n *node) look() {
	select {
	case n.looks <- struct{}{}:
	default:
	}
}

func (n *node) membersPath() string { return filepath.Join(dataDir, "members.json") }
func (n *node) givenPath() string   { return filepath.Join(dataDir, "given.json") }

// run is the member's life.
func (n *node) run(ctx context.Context) error {
	if err := n.cfg.prepare(); err != nil {
		return err
	}
	for path, into := range map[string]any{n.membersPath(): &n.members, n.givenPath(): &n.given} {
		if err := durable.ReadJSON(path, into); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	listening := make(chan error, 1)
	go func() { listening <- n.listen(ctx) }() // ends with ctx; its end is waited for
	for ctx.Err() == nil {
		if err := n.step(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
		case err := <-listening:
			return errors.Join(err, n.end())
		case <-n.looks:
		case <-time.After(lookEvery):
		}
	}
	return errors.Join(n.end(), <-listening)
}

// end stops everything, the server so that its replicas have all that it has.
func (n *node) end() error {
	n.acting.Lock()
	defer n.acting.Unlock()
	return errors.Join(n.stopDaemon(), n.server.stop(syscall.SIGINT, stopBound))
}

// step is one look at everything.
func (n *node) step(ctx context.Context) error {
	n.acting.Lock()
	defer n.acting.Unlock()
	answers := n.ask(ctx)
	if n.server.ended() {
		return n.start(ctx, answers)
	}
	me, err := n.refresh(ctx)
	if err != nil {
		return err
	}
	switch me.Role {
	case Primary:
		return n.asPrimary(ctx, me, answers)
	default:
		return n.asReplica(ctx, me, answers)
	}
}

// refresh asks the own server, and remembers what it says. It is called with acting held, which guards the connection.
func (n *node) refresh(ctx context.Context) (State, error) {
	var s State
	err := connected(ctx, &n.conn, "postgres")
	if err == nil {
		s, err = askState(ctx, n.conn, n.cfg.self)
	}
	if err != nil {
		s = n.now()
		n.idle(s.WasPrimary || s.Role == Primary, 0, 0, fmt.Sprintf("the server does not answer: %v", err))
		return s, err
	}
	if s.Role == Primary {
		s.Problem = n.fault(s)
	}
	n.set(s)
	return s, nil
}

// connected makes a connection if there is none: one that failed is closed.
func connected(ctx context.Context, conn **pgx.Conn, database string) error {
	if *conn != nil && !(*conn).IsClosed() {
		return nil
	}
	var err error
	*conn, err = local(ctx, database)
	return err
}

// fault says why a primary does not take writes; empty when it does.
func (n *node) fault(me State) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.members) == 0 {
		return "its cluster is not registered yet"
	}
	for _, a := range n.answers {
		if yields(me, a) {
			return fmt.Sprintf("member %d is the primary since", a.ID)
		}
	}
	return ""
}

// asPrimary keeps what a primary looks after: who must have its commits, and repmgr's table.
func (n *node) asPrimary(ctx context.Context, me State, answers []State) error {
	if other, there := primaryOf(answers); there && yields(me, other) {
		n.log.Warn("another member was granted since: this one yields", "to", other.ID)
		if err := n.stopServer(); err != nil {
			return err
		}
		return n.rejoin(ctx, other)
	}
	have, err := n.remember(ctx)
	if err != nil {
		return errors.Join(err, n.found(ctx)) // there is no table: this is the first start
	}
	if sql := amends(me, have, answers); len(sql) > 0 {
		if err := execute(ctx, "repmgr", sql...); err != nil {
			return err
		}
	}
	return n.keepDaemon(ctx, me.Address)
}

// asReplica follows the primary that there is.
func (n *node) asReplica(ctx context.Context, me State, answers []State) error {
	p, there := primaryOf(answers)
	if !there || p.ID == me.ID { // repmgrd says when it has been away for too long; where it does not, somebody must
		return errors.Join(n.keepDaemon(ctx, me.Upstream), n.stand(ctx, me, answers))
	}
	n.orphanAt = time.Time{}
	if me.Upstream != p.Address {
		n.log.Info("it follows", "primary", p.ID)
		return executeOn(ctx, n.conn, "ALTER SYSTEM SET primary_conninfo = "+quote(n.cfg.upstream(p.Address)), "SELECT pg_reload_conf()")
	}
	switch {
	case me.Streaming:
		n.lostAt = time.Time{}
	case n.lostAt.IsZero():
		n.lostAt = time.Now()
	case time.Since(n.lostAt) > lostBound && p.Timeline >= me.Timeline:
		n.log.Warn("it does not stream from a primary that is there: its log is made to be the primary's", "primary", p.ID)
		n.lostAt = time.Time{}
		if err := n.stopServer(); err != nil {
			return err
		}
		return n.rejoin(ctx, p)
	}
	if !me.Streaming {
		return nil
	}
	have, err := n.remember(ctx)
	if err != nil {
		return err
	}
	if !contains(have, me.ID) {
		return n.cfg.must(ctx, "repmgr", "-f", n.cfg.repmgrConf(), "standby", "register", "--force")
	}
	return n.keepDaemon(ctx, p.Address)
}

// stand asks for grants when there has been no primary for so long that repmgrd cannot be at work, and this member is the one to ask.
func (n *node) stand(ctx context.Context, me State, answers []State) error {
	switch {
	case me.Streaming:
		n.orphanAt = time.Time{}
	case n.orphanAt.IsZero():
		n.orphanAt = time.Now()
	case time.Since(n.orphanAt) > orphanBound && stands(me, answers):
		n.log.Warn("there is no primary, and nobody has taken over: this member asks for grants", "since", n.orphanAt)
		_, err := n.promoteHeld(ctx)
		return err
	}
	return nil
}

func contains(have []record, id int) bool {
	for _, r := range have {
		if r.ID == id {
			return true
		}
	}
	return false
}

// remember keeps who is a member, for the time when no server can be asked, and whom commits wait for, for the moment in which this one is promoted.
func (n *node) remember(ctx context.Context) ([]record, error) {
	have, err := n.recorded(ctx)
	if err != nil {
		return nil, err
	}
	var members []Member
	for _, r := range have {
		members = append(members, r.Member)
	}
	n.mu.Lock()
	same := fmt.Sprint(members) == fmt.Sprint(n.members)
	n.mu.Unlock()
	if same || len(members) == 0 {
		return have, nil
	}
	if err := execute(ctx, "postgres", "ALTER SYSTEM SET synchronous_standby_names = "+quote(quorum(n.cfg.self.ID, members)), "SELECT pg_reload_conf()"); err != nil {
		return nil, err
	}
	if err := durable.WriteJSON(n.membersPath(), members, 0o644); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.members = members
	n.mu.Unlock()
	return have, nil
}

// recorded reads repmgr's table.
func (n *node) recorded(ctx context.Context) ([]record, error) {
	if err := connected(ctx, &n.table, "repmgr"); err != nil {
		return nil, err
	}
	return records(ctx, n.table)
}

// becomeStandby makes a stopped server one that follows another. Should it be promoted, commits wait for the other voters from the first moment on.
func (n *node) becomeStandby(upstream string) error {
	n.mu.Lock()
	names := quorum(n.cfg.self.ID, n.members)
	n.mu.Unlock()
	auto := fmt.Sprintf("primary_conninfo = %s\nsynchronous_standby_names = %s\n", quote(n.cfg.upstream(upstream)), quote(names))
	return errors.Join(n.cfg.write(filepath.Join(n.cfg.pgdata(), "postgresql.auto.conf"), auto, 0o600), n.cfg.write(n.cfg.signalFile(), "", 0o600))
}

// keepDaemon keeps repmgrd running: it ends for good when its upstream is away at its start, and is begun anew when that is another one.
func (n *node) keepDaemon(ctx context.Context, upstream string) error {
	if !n.daemon.ended() && n.followed == upstream {
		return nil
	}
	if err := n.stopDaemon(); err != nil {
		return err
	}
	if have, err := n.recorded(ctx); err != nil || !contains(have, n.cfg.self.ID) {
		return err
	}
	var err error
	n.followed = upstream
	// It belongs to the machine, not to this look.
	n.daemon, err = launch(n.cfg.command(context.WithoutCancel(ctx), "repmgrd", "-f", n.cfg.repmgrConf(), "--daemonize=false", "--no-pid-file"))
	return err
}

func (n *node) stopDaemon() error { return n.daemon.stop(syscall.SIGTERM, 5*time.Second) }

// stopServer stops the server so that its standbys get all that it has.
func (n *node) stopServer() error {
	err := n.stopDaemon()
	for _, conn := range []**pgx.Conn{&n.conn, &n.table} {
		if *conn != nil {
			(*conn).Close(context.Background()) // the server ends it in any case
			*conn = nil
		}
	}
	return errors.Join(err, n.server.stop(syscall.SIGINT, stopBound))
}
