// Command pgload writes to the example's Postgres cluster, and tells of each commit that was acknowledged, as an application far away would see it.
//
//	pgload write HOST,HOST,...     writes until its input ends, so that it ends with whoever started it; prints "ack ID" for each row whose commit was acknowledged
//	pgload list HOST,HOST,...      prints the ID of each row that is there
//
// The password is in PG_PASSWORD.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// writers is how many write side by side.
	writers = 2
	// patience is how long an answer is waited for before the connection is given up: what became of the commit is not known then. Who loses patience
	// sooner than a busy server answers makes it busier: each new connection costs it more than the answer.
	patience = 20 * time.Second
	// silence is how long a host may not answer at all.
	silence = 3 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pgload:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 || args[0] != "write" && args[0] != "list" {
		return errors.New("usage: pgload write|list HOST[,HOST...]")
	}
	hosts := strings.Split(args[1], ",")
	if args[0] == "list" {
		return list(ctx, hosts)
	}
	return write(ctx, hosts)
}

// connect finds the member that takes writes. A host without power says nothing: it is given up sooner than a busy server, whose kernel takes a connection at once.
func connect(ctx context.Context, hosts []string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%s user=app password=%s dbname=app connect_timeout=15 target_session_attrs=read-write sslmode=disable",
		strings.Join(hosts, ","), os.Getenv("PG_PASSWORD")))
	if err != nil {
		return nil, err
	}
	config.DialFunc = (&net.Dialer{Timeout: silence}).DialContext
	return pgx.ConnectConfig(ctx, config)
}

// write writes rows with growing IDs until the input ends.
func write(ctx context.Context, hosts []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the program: a read of the input cannot be called off
		io.Copy(io.Discard, os.Stdin) // an input that fails has ended, too
		cancel()
	}()
	conn, err := connect(ctx, hosts)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS written (id bigint PRIMARY KEY, writer int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(), filler text NOT NULL)")
	var first int64
	if err == nil {
		err = conn.QueryRow(ctx, "SELECT coalesce(max(id), 0) FROM written").Scan(&first) // an earlier run may have written
	}
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return err
	}
	var last atomic.Int64
	last.Store(first)
	var mu sync.Mutex // of stdout
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := writeOn(ctx, hosts, w, &last, &mu); err != nil && ctx.Err() == nil {
					fmt.Fprintf(os.Stderr, "writer %d connects again: %v\n", w, err)
					select {
					case <-ctx.Done():
					case <-time.After(50 * time.Millisecond):
					}
				}
			}
		})
	}
	all.Wait()
	return nil
}

// writeOn writes over one connection until that fails.
func writeOn(ctx context.Context, hosts []string, writer int, last *atomic.Int64, mu *sync.Mutex) error {
	conn, err := connect(ctx, hosts)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) // what was acknowledged is
	for ctx.Err() == nil {
		id := last.Add(1)
		// What was begun comes to its end: a commit that nobody waits for is neither lost nor kept for certain.
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		_, err := conn.Exec(one, "INSERT INTO written (id, writer, filler) VALUES ($1, $2, repeat('x', 100))", id, writer)
		cancel()
		if err != nil {
			return err
		}
		mu.Lock()
		_, err = fmt.Printf("ack %d\n", id)
		mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func list(ctx context.Context, hosts []string) error {
	conn, err := connect(ctx, hosts)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) // it is only read
	rows, err := conn.Query(ctx, "SELECT id FROM written ORDER BY id")
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		fmt.Fprintln(out, id)
	}
	return errors.Join(rows.Err(), out.Flush())
}
