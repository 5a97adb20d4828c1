package volume

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"drover"
	"drover/vhostuser"
)

// vhostDir in Config.RunDir has a socket for each layer that is open: RUN/vhost/NAME.sock.
const vhostDir = "vhost"

// maxVhostConnections bounds the connections to one layer. A VM has one; while it moves between two VMMs of a host there are two.
const maxVhostConnections = 8

// vhostSocket is where LAYER@EPOCH is served. The name is a hash, because an ID may be longer than a socket's address, and has the epoch
// in it, so that a VM of an older one never finds it. It is the same after a restart of the daemon: VMs connect to it again.
func vhostSocket(run string, id drover.LayerID, epoch drover.Epoch) string {
	sum := sha256.Sum256([]byte(exportName(id, epoch)))
	return filepath.Join(run, vhostDir, fmt.Sprintf("%x.sock", sum[:8]))
}

// vhostExport serves one layer at one epoch over vhost-user-blk.
type vhostExport struct {
	layer    *layer
	epoch    drover.Epoch
	path     string
	log      *slog.Logger
	listener *net.UnixListener
	count    atomic.Int32
	// late is what a socket waits for that was prepared before its layer was open; nil for any other.
	late *lateOpen
	wg   sync.WaitGroup
}

// prepareVhost makes the directory of the sockets, and empties it: the lock of the run directory is held, so they are a dead daemon's.
func prepareVhost(run string) error {
	dir := filepath.Join(run, vhostDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return drover.Errorf(drover.Internal, "cannot make the directory of vhost-user sockets: %w", err)
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot clean up the directory of vhost-user sockets: %w", err)
	}
	return nil
}

// resumeVhost serves the layers that are open, after a start of the daemon.
func (p *pool) resumeVhost() error {
	if err := prepareVhost(p.run); err != nil {
		return err
	}
	for _, l := range p.all() {
		l.mu.Lock()
		epoch := l.writable
		l.mu.Unlock()
		if err := p.servePrepared(l); err != nil {
			l.log.Error("layer is not served to the VM that it was prepared for", "err", err)
		}
		if epoch == 0 {
			continue
		}
		if _, err := p.serveVhost(l, epoch); err != nil {
			l.log.Error("layer is not served over vhost-user-blk", "err", err) // no reason to keep the others from their VMs
		}
	}
	return nil
}

// serveVhost makes the socket of a layer that is open at the epoch, unless it is there, and returns its path. The caller has the layer's
// turn.
func (p *pool) serveVhost(l *layer, epoch drover.Epoch) (string, error) {
	path := vhostSocket(p.run, l.id, epoch)
	l.mu.Lock()
	old := l.vhost
	l.mu.Unlock()
	if old != nil && old.epoch == epoch {
		return path, nil
	}
	if old != nil {
		l.endVhost()()
	}
	listener, err := listenUnix(path)
	if err != nil {
		return "", err
	}
	e := &vhostExport{layer: l, epoch: epoch, path: path, log: l.log, listener: listener.(*net.UnixListener)}
	l.mu.Lock()
	l.vhost = e
	l.mu.Unlock()
	e.wg.Go(func() { e.accept(p) })
	return path, nil
}

// endVhost takes the socket away. Connections are ended by cut; the function that it returns waits until nothing of them is left.
func (l *layer) endVhost() (wait func()) {
	l.mu.Lock()
	e := l.vhost
	l.vhost = nil
	l.mu.Unlock()
	if e == nil {
		return func() {}
	}
	if err := e.listener.Close(); err != nil { // removes the socket, too
		e.log.Warn("cannot close a vhost-user socket", "path", e.path, "err", err)
	}
	return func() {
		l.cut(drover.Errorf(drover.Unavailable, "layer %s: %w", l.id, errVhostEnds), func(s *session) bool { return s.device.Load() != nil && s.epoch == e.epoch }, false)
		e.wg.Wait()
	}
}

// accept takes connections until the socket is closed.
func (e *vhostExport) accept(p *pool) {
	for failures := 0; ; {
		conn, err := e.listener.AcceptUnix()
		switch {
		case err == nil:
			failures = 0
		case errors.Is(err, net.ErrClosed):
			return
		default:
			failures++
			pause := min(5*time.Millisecond<<min(failures, 8), time.Second)
			e.log.Warn("cannot accept a vhost-user connection", "again_in", pause, "err", err)
			if waitFor(p.ctx, nil, pause) != nil {
				return
			}
			continue
		}
		if e.count.Add(1) > maxVhostConnections {
			e.count.Add(-1)
			e.log.Warn("refused a vhost-user connection: too many", "max", maxVhostConnections)
			e.close(conn)
			continue
		}
		e.wg.Go(func() {
			defer e.count.Add(-1)
			e.serve(p, conn)
		})
	}
}

func (e *vhostExport) close(conn net.Conn) {
	if err := conn.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		e.log.Warn("cannot close a vhost-user connection", "err", err)
	}
}

// serve serves one connection to its end.
func (e *vhostExport) serve(p *pool, conn *net.UnixConn) {
	if e.late != nil {
		e.serveLate(p, conn)
		return
	}
	key, err := p.keyFor(e.layer)
	var s *session
	if err == nil {
		s, err = e.layer.connect(e.epoch, "", key)
	}
	if err != nil {
		e.log.Info("refused a vhost-user connection", "err", err)
		e.close(conn)
		return
	}
	spec := e.layer.meta().Spec
	d := vhostuser.New(vhostuser.Config{Backend: s, Size: int64(spec.Size), Serial: string(spec.Disk), Gone: s.gone, Log: e.log,
		Faults: p.cfg.Faults, Start: func() error { return e.takeOver(s) }})
	s.device.Store(d)
	e.follow(s, d, int64(spec.Size))
	// A session that is ended meanwhile ends the device at once, by its context.
	if err := d.Serve(s.ctx, conn); err != nil {
		e.log.Warn("a vhost-user connection ended with an error", "err", err)
	}
	s.Close()
}

// follow tells the device of each new size of the layer. It was made with the size known; 0 is none that a layer has.
func (e *vhostExport) follow(s *session, d *vhostuser.Device, known int64) {
	resize := func(size int64) {
		if err := d.Resize(size); err != nil {
			e.log.Warn("cannot tell a VM of its disk's new size", "err", err)
		}
	}
	s.onResize(resize)
	if now := int64(e.layer.meta().Spec.Size); now != known { // it has grown meanwhile
		resize(now)
	}
}

// takeOver makes the session the one that writes before its first ring runs: rings of an earlier connection complete requests in the same
// memory. It gives up when the session is ended, by a newer one that waits for this one's device.
func (e *vhostExport) takeOver(s *session) error {
	done := make(chan error, 1)
	e.wg.Go(func() { done <- s.takeOver() })
	select {
	case err := <-done:
		return err
	case <-s.ctx.Done():
		return s.ended()
	}
}
