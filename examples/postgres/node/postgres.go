package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"drover/internal/durable"
)

// process is a program that was started, with what becomes of it.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // once done is closed
}

func (p *process) ended() bool {
	if p == nil {
		return true
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// command makes a command that runs as postgres, with what it prints in the machine's log.
func (c config) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if !strings.Contains(name, "/") {
		name = filepath.Join(programs, name)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "PATH="+programs+":/usr/local/bin:/usr/bin:/bin", "PGPASSFILE="+c.passFile(), "HOME="+dataDir, "LC_ALL=C.UTF-8")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dataDir, os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: c.gid}}
	return cmd
}

// must runs a command to its end.
func (c config) must(ctx context.Context, name string, args ...string) error {
	if err := c.command(ctx, name, args...).Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return nil
}

// launch starts a command, and waits for its end beside.
func launch(cmd *exec.Cmd) (*process, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the program, which stop waits for
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop sends a signal and waits; who does not end in time is killed.
func (p *process) stop(sig syscall.Signal, bound time.Duration) error {
	if p.ended() {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(bound):
	}
	err := p.cmd.Process.Kill()
	<-p.done
	return errors.Join(fmt.Errorf("%s did not end within %v and was killed", p.cmd.Path, bound), err)
}

// settings are those of every member, whatever its role. A standby that lost its primary looks for it anew soon: a switch of the primary waits for it.
const settings = `listen_addresses = '*'
unix_socket_directories = '` + sockets + `'
shared_preload_libraries = 'repmgr'
wal_level = replica
wal_log_hints = on
hot_standby = on
max_wal_senders = 10
wal_keep_size = 256MB
max_wal_size = 256MB
wal_sender_timeout = 60s
wal_receiver_timeout = 20s
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
recovery_target_timeline = latest
synchronous_commit = on
shared_buffers = 24MB
max_connections = 40
autovacuum_max_workers = 1
huge_pages = off
jit = off
`

const access = `local all all trust
local replication all trust
host replication repmgr fdaa::/16 scram-sha-256
host all all fdaa::/16 scram-sha-256
`

// write makes a file that postgres owns.
func (c config) write(path, content string, perm os.FileMode) error {
	if err := durable.WriteFile(path, []byte(content), perm); err != nil {
		return err
	}
	return os.Chown(path, int(c.uid), int(c.gid))
}

// prepare makes what must be there before anything of PostgreSQL's runs.
func (c config) prepare() error {
	for _, dir := range []string{sockets, dataDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chown(dir, int(c.uid), int(c.gid)); err != nil {
			return err
		}
	}
	location, priority := os.Getenv("DROVER_REGION"), 100
	if !c.self.Voter {
		priority = 0
	}
	repmgr := fmt.Sprintf(`node_id=%d
node_name='%s'
conninfo='%s'
data_directory='%s'
pg_bindir='%s'
location='%s'
priority=%d
use_replication_slots=no
failover=automatic
promote_command='/usr/local/bin/pgnode promote'
follow_command='/usr/local/bin/pgnode follow'
reconnect_attempts=3
reconnect_interval=2
monitor_interval_secs=2
primary_visibility_consensus=true
`, c.self.ID, c.name(), c.conninfo(c.self.Address), c.pgdata(), programs, location, priority)
	return errors.Join(
		noticeSilence(),
		c.write(c.passFile(), "*:*:*:*:"+c.password+"\n", 0o600),
		c.write(c.repmgrConf(), repmgr, 0o600),
		c.write(filepath.Join(dataDir, "settings.conf"), settings, 0o644),
	)
}

// noticeSilence makes the kernel of this machine give up a connection that nobody answers after 3 s, not 130: a host without power says nothing. Within a private
// network the kernel of a member answers at once, however busy its server is; for the server's own answer connect_timeout is as long as before.
func noticeSilence() error {
	f, err := os.OpenFile("/proc/sys/net/ipv4/tcp_syn_retries", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("1")
	return errors.Join(err, f.Close())
}

// hasData reports whether there is a whole data directory.
func (c config) hasData() bool {
	_, err := os.Stat(filepath.Join(c.pgdata(), "PG_VERSION"))
	_, half := os.Stat(filepath.Join(dataDir, "being-made"))
	return err == nil && half != nil
}

// make lets a function make the data directory; one that was cut is made anew.
func (c config) make(with func() error) error {
	mark := filepath.Join(dataDir, "being-made")
	if err := c.write(mark, "", 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(c.pgdata()); err != nil {
		return err
	}
	if err := with(); err != nil {
		return err
	}
	return durable.Remove(mark)
}

// arrange writes the files of a data directory that may have come from another member.
func (c config) arrange() error {
	path := filepath.Join(c.pgdata(), "postgresql.conf")
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const line = "include '" + dataDir + "/settings.conf'\n"
	if !bytes.Contains(content, []byte(line)) {
		if err := c.write(path, string(content)+line, 0o600); err != nil {
			return err
		}
	}
	return c.write(filepath.Join(c.pgdata(), "pg_hba.conf"), access, 0o600)
}

func (c config) signalFile() string { return filepath.Join(c.pgdata(), "standby.signal") }

// upstream is the primary_conninfo with which this member follows another.
func (c config) upstream(address string) string {
	return c.conninfo(address) + " application_name=" + c.name()
}

// onDisk tells what a stopped server has: its timeline and where its last checkpoint is.
func (c config) onDisk(ctx context.Context) (timeline uint32, checkpoint uint64, err error) {
	cmd := c.command(ctx, "pg_controldata", c.pgdata())
	cmd.Stdout = nil
	out, err := cmd.Output()
	if err != nil {
		return 0, 0, fmt.Errorf("pg_controldata: %w", err)
	}
	timeline, checkpoint, err = parseControl(string(out))
	// A timeline that was begun just before a crash is in no checkpoint yet, but has its history.
	histories, _ := filepath.Glob(filepath.Join(c.pgdata(), "pg_wal", "????????.history")) // the pattern is well formed
	for _, h := range histories {
		if n, perr := strconv.ParseUint(strings.TrimSuffix(filepath.Base(h), ".history"), 16, 32); perr == nil {
			timeline = max(timeline, uint32(n))
		}
	}
	return timeline, checkpoint, err
}

// parseControl reads what pg_controldata prints.
func parseControl(text string) (timeline uint32, checkpoint uint64, err error) {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	n, err1 := strconv.ParseUint(fields["Latest checkpoint's TimeLineID"], 10, 32)
	checkpoint, err2 := parseLSN(fields["Latest checkpoint location"])
	return uint32(n), checkpoint, errors.Join(err1, err2)
}

// parseLSN reads a place in the log as PostgreSQL writes it.
func parseLSN(text string) (uint64, error) {
	high, low, ok := strings.Cut(text, "/")
	h, err1 := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q is no place in the log", text)
	}
	return h<<32 | l, nil
}
