package volume

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"drover"
	"drover/vhostuser"
)

// vhostDir in Config.RunDir has a socket for each VM whose disk is a layer that is open: RUN/vhost/NAME.sock. The VMM listens there, and this
// daemon connects: that way a daemon which was restarted serves its guests again at once, where VMMs know no shorter pause than a second
// before they would look for it.
const vhostDir = "vhost"

const (
	// dialEager is how often a VM is looked for that was just announced or has just gone, for dialFirst; dialSlow how often after that.
	dialEager = 10 * time.Millisecond
	dialSlow  = 100 * time.Millisecond
	dialFirst = 10 * time.Second
	// dialRefused is the pause after a VM that ended its connection in the moment of its beginning, or whose layer cannot be served yet.
	dialRefused = time.Second
)

// vhostSocket is where the VM of LAYER@EPOCH listens. The name is a hash, because an ID may be longer than a socket's address, and has the
// epoch in it, so that a VM of an older one is never served. It is the same after a restart of the daemon.
func vhostSocket(run string, id drover.LayerID, epoch drover.Epoch) string {
	sum := sha256.Sum256([]byte(exportName(id, epoch)))
	return filepath.Join(run, vhostDir, fmt.Sprintf("%x.sock", sum[:8]))
}

// vhostExport serves one layer at one epoch over vhost-user-blk.
type vhostExport struct {
	pool  *pool
	layer *layer
	epoch drover.Epoch
	path  string
	log   *slog.Logger
	// ctx ends with the export, late is what a VM waits for whose layer was not open when it was announced; nil for any other.
	ctx    context.Context
	cancel context.CancelFunc
	late   *lateOpen
	wg     sync.WaitGroup
}

// newVhostExport begins to look for the VM that listens at the path.
func (p *pool) newVhostExport(l *layer, epoch drover.Epoch, path string, late *lateOpen) *vhostExport {
	e := &vhostExport{pool: p, layer: l, epoch: epoch, path: path, log: l.log, late: late}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.wg.Go(e.run)
	return e
}

// resumeVhost serves the layers that are open, after a start of the daemon, and clears away the sockets of VMs that are not served any more.
func (p *pool) resumeVhost() error {
	dir := filepath.Join(p.run, vhostDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return drover.Errorf(drover.Internal, "cannot make the directory of vhost-user sockets: %w", err)
	}
	served := map[string]bool{}
	for _, l := range p.all() {
		l.mu.Lock()
		epoch := l.writable
		l.mu.Unlock()
		if path := p.servePrepared(l); path != "" {
			served[path] = true
		}
		if epoch != 0 {
			served[p.serveVhost(l, epoch)] = true
		}
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); !served[path] {
			err = errors.Join(err, os.Remove(path))
		}
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot clean up the directory of vhost-user sockets: %w", err)
	}
	return nil
}

// serveVhost serves a layer that is open at the epoch, unless it is served already, and returns where its VM has to listen. The caller has the
// layer's turn.
func (p *pool) serveVhost(l *layer, epoch drover.Epoch) string {
	path := vhostSocket(p.run, l.id, epoch)
	l.mu.Lock()
	old := l.vhost
	l.mu.Unlock()
	if old != nil && old.epoch == epoch {
		return path
	}
	if old != nil {
		l.endVhost()()
	}
	e := p.newVhostExport(l, epoch, path, nil)
	l.mu.Lock()
	l.vhost = e
	l.mu.Unlock()
	return path
}

// endVhost looks for no VM any more. Connections are ended by cut; the function that it returns waits until nothing of them is left.
func (l *layer) endVhost() (wait func()) {
	l.mu.Lock()
	e := l.vhost
	l.vhost = nil
	l.mu.Unlock()
	if e == nil {
		return func() {}
	}
	e.cancel()
	return func() {
		l.cut(drover.Errorf(drover.Unavailable, "layer %s: %w", l.id, errVhostEnds), func(s *session) bool { return s.device.Load() != nil && s.epoch == e.epoch }, false)
		e.wg.Wait()
		e.unlink()
	}
}

// unlink removes the VM's socket, unless the daemon only ends: then the VM waits for the next one.
func (e *vhostExport) unlink() {
	if e.pool.ctx.Err() != nil {
		return
	}
	if err := os.Remove(e.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Warn("cannot remove a vhost-user socket", "path", e.path, "err", err)
	}
}

// run connects to the VM, again and again, until the export ends. One that hangs up is looked for anew while what is left of the old
// connection comes to its end.
func (e *vhostExport) run() {
	since := time.Now()
	for e.ctx.Err() == nil {
		began := time.Now()
		hung, err := e.connect()
		if err == nil {
			select {
			case <-hung:
			case <-e.ctx.Done():
				return
			}
			since = time.Now()
		}
		pause := dialEager
		switch {
		case errors.Is(err, errNotYet), err == nil && time.Since(began) < dialEager:
			pause = dialRefused
		case time.Since(since) > dialFirst:
			pause = dialSlow
		}
		if waitFor(e.ctx, nil, pause) != nil {
			return
		}
	}
}

// errNotYet: the layer cannot be served now, so that a VM had better not be connected to.
var errNotYet = errors.New("the layer cannot be served yet")

// connect connects to the VM, if it is there, and serves it. hung is closed when the VM has gone.
func (e *vhostExport) connect() (hung <-chan struct{}, err error) {
	serve, err := e.server()
	if err != nil {
		e.log.Info("a VM is not served over vhost-user-blk yet", "err", err)
		return nil, errNotYet
	}
	conn, err := (&net.Dialer{}).DialContext(e.ctx, "unix", e.path)
	if err != nil {
		return nil, err
	}
	gone := make(chan struct{})
	hangup := sync.OnceFunc(func() { close(gone) })
	e.wg.Go(func() {
		defer hangup()
		serve(conn.(*net.UnixConn), hangup)
	})
	return gone, nil
}

// server returns what serves the next connection, or says why there must be none.
func (e *vhostExport) server() (func(conn *net.UnixConn, hangup func()), error) {
	if e.late != nil {
		return e.serveLate, e.mayServe()
	}
	key, err := e.pool.keyFor(e.layer)
	if err != nil {
		return nil, err
	}
	return func(conn *net.UnixConn, hangup func()) { e.serve(conn, hangup, key) }, nil
}

// serve serves one connection to its end.
func (e *vhostExport) serve(conn *net.UnixConn, hangup func(), key *diskKey) {
	s, err := e.layer.connect(e.epoch, "", key)
	if err != nil {
		e.log.Info("a VM is not served over vhost-user-blk", "err", err)
		if err := conn.Close(); err != nil {
			e.log.Warn("cannot close a vhost-user connection", "err", err)
		}
		return
	}
	spec := e.layer.meta().Spec
	d := vhostuser.New(vhostuser.Config{Backend: s, Size: int64(spec.Size), Serial: string(spec.Disk), Gone: s.gone, Log: e.log,
		Faults: e.pool.cfg.Faults, Start: func() error { return e.takeOver(s) }, Hangup: hangup})
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
