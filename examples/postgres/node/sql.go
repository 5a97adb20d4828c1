package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// askBound is how long the own server may take to answer a question: long enough for an emulated processor that others want, too.
const askBound = 30 * time.Second

// local connects to the own server.
func local(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=%s connect_timeout=30", sockets, pgPort, database))
}

// execute runs statements on the own server, one after another.
func execute(ctx context.Context, database string, statements ...string) error {
	conn, err := local(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) // what was executed is
	return executeOn(ctx, conn, statements...)
}

// executeOn runs statements over a connection that is there: another one takes an emulated processor part of a second to make, for which writes may wait.
func executeOn(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%.60s: %w", s, err)
		}
	}
	return nil
}

func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

const stateQuery = `SELECT pg_is_in_recovery(),
 (CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint,
 CASE WHEN pg_is_in_recovery() THEN '' ELSE pg_walfile_name(pg_current_wal_lsn()) END,
 greatest((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT timeline_id FROM pg_control_checkpoint()), (SELECT min_recovery_end_timeline FROM pg_control_recovery())),
 coalesce((SELECT status = 'streaming' FROM pg_stat_wal_receiver), false),
 current_setting('primary_conninfo')`

// askState asks the own server what it is.
func askState(ctx context.Context, conn *pgx.Conn, self Member) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	s := State{Member: self}
	var recovering bool
	var lsn int64
	var segment, upstream string
	var timeline int64
	if err := conn.QueryRow(ctx, stateQuery).Scan(&recovering, &lsn, &segment, &timeline, &s.Streaming, &upstream); err != nil {
		return s, err
	}
	s.LSN, s.Timeline, s.Role = uint64(lsn), uint32(timeline), Replica
	if recovering {
		s.Upstream = hostIn(upstream)
		if !s.Streaming {
			s.Problem = "does not stream from " + s.Upstream
		}
		return s, nil
	}
	s.Role, s.Streaming = Primary, false
	if _, err := fmt.Sscanf(segment[:8], "%08X", &s.Timeline); err != nil {
		return s, fmt.Errorf("segment %q has no timeline: %w", segment, err)
	}
	return s, nil
}

// hostIn finds the host in a conninfo.
func hostIn(conninfo string) string {
	for _, word := range strings.Fields(conninfo) {
		if host, ok := strings.CutPrefix(word, "host="); ok {
			return host
		}
	}
	return ""
}

// record is a member in repmgr's table.
type record struct {
	Member
	kind     string
	active   bool
	upstream int
}

// records reads repmgr's table.
func records(ctx context.Context, conn *pgx.Conn) ([]record, error) {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	rows, err := conn.Query(ctx, `SELECT node_id, type, active, coalesce(upstream_node_id, 0), conninfo, priority FROM repmgr.nodes ORDER BY node_id`)
	if err != nil {
		return nil, err
	}
	var all []record
	for rows.Next() {
		var r record
		var conninfo string
		var priority int
		if err := rows.Scan(&r.ID, &r.kind, &r.active, &r.upstream, &conninfo, &priority); err != nil {
			return nil, err
		}
		r.Address, r.Voter = hostIn(conninfo), priority > 0
		all = append(all, r)
	}
	return all, rows.Err()
}

// amends are the statements that make repmgr's table say what is: this member is the primary, and who follows it does.
func amends(me State, have []record, answers []State) []string {
	var out []string
	for _, r := range have {
		i := slices.IndexFunc(answers, func(a State) bool { return a.ID == r.ID })
		switch {
		case r.ID == me.ID:
			if r.kind != "primary" || !r.active || r.upstream != 0 {
				out = append(out, fmt.Sprintf("UPDATE repmgr.nodes SET type = 'primary', active = true, upstream_node_id = NULL WHERE node_id = %d", r.ID))
			}
		case i >= 0 && answers[i].Role == Replica && answers[i].Upstream == me.Address:
			if r.kind != "standby" || !r.active || r.upstream != me.ID {
				out = append(out, fmt.Sprintf("UPDATE repmgr.nodes SET type = 'standby', active = true, upstream_node_id = %d WHERE node_id = %d", me.ID, r.ID))
			}
		case r.kind == "primary":
			out = append(out, fmt.Sprintf("UPDATE repmgr.nodes SET type = 'standby', active = false, upstream_node_id = %d WHERE node_id = %d", me.ID, r.ID))
		}
	}
	// A table with two active primaries is none that repmgr bears, so those that are not go first.
	slices.SortStableFunc(out, func(a, b string) int {
		return strings.Compare(fmt.Sprint(strings.Contains(a, "'primary'")), fmt.Sprint(strings.Contains(b, "'primary'")))
	})
	return out
}

// quorum is who must have a commit beside the primary before it is acknowledged: as many of the other voters as make a majority with it.
func quorum(self int, members []Member) string {
	var names []string
	for _, m := range members {
		if m.Voter && m.ID != self {
			names = append(names, nodeName(m.ID))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("ANY %d (%s)", (len(names)+1)/2, strings.Join(names, ", "))
}
