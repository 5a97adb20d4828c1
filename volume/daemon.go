package volume

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/internal/durable"
	"drover/internal/fault"
	"drover/internal/fleetca"
	"drover/internal/sockets"
	"drover/nbd"
)

// The sockets in Config.RunDir.
const (
	controlSocket = "storage.sock"
	nbdSocket     = "nbd.sock"
)

// defaultParentWait is Config.ParentWait's default.
const defaultParentWait = time.Minute

// Config describes the storage daemon of one host.
type Config struct {
	Host drover.HostID
	// Dir is the pool, for example DATA/storage. One daemon per pool.
	Dir string
	// RunDir is on tmpfs: what is in it survives the process and is gone after a power cut. It gets the sockets storage.sock
	// (control) and nbd.sock (NBD), and the live maps.
	RunDir string
	// Boot names the boot of the host that RunDir is from. Empty: the kernel's boot ID. Another one says that the power may have been cut.
	Boot string
	// NBD is the listening socket nbd.sock when it was there before the daemon and outlives it, so that VMs which connect while no daemon runs
	// wait for the next one. Nil: the daemon makes it. Run closes it.
	NBD net.Listener
	// Listen is the host and port that other hosts read exports from, over TLS. Empty: no exports.
	Listen string
	// TLSDir has ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem and client-key.pem. A host's certificates have its
	// host ID as common name.
	TLSDir string
	// Threads is nbd.ServerConfig.Threads of the unix socket.
	Threads int
	// Uncompressed: what is read from other hosts comes as it is, also over links on which compression would pay.
	Uncompressed bool
	// ParentWait bounds how long a read of an absent block waits for a parent that cannot be reached. 0 means 60 s.
	ParentWait time.Duration
	// Floor is how much of the pool's file system guests leave free. 0 means one per cent, at most 64 MiB.
	Floor drover.Bytes
	// RoomWait is how long writes wait for room in a pool that is full, from the first one on, before they are refused with ENOSPC. 0 means 30 s.
	RoomWait time.Duration
	// Objects is where snapshots are kept; nil for nowhere.
	Objects drover.ObjectStore
	// UploadLimit bounds what is read for snapshots, in bytes per second; 0 for no limit. Guests go first in any case.
	UploadLimit drover.Bytes
	Log         *slog.Logger
	Faults      *fault.Points
}

// withDefaults fills in and checks.
func (cfg Config) withDefaults() (Config, error) {
	if cfg.ParentWait == 0 {
		cfg.ParentWait = defaultParentWait
	}
	if cfg.RoomWait == 0 {
		cfg.RoomWait = defaultRoomWait
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Boot == "" {
		boot, err := bootID()
		if err != nil {
			return cfg, err
		}
		cfg.Boot = boot
	}
	switch {
	case !drover.ValidName(string(cfg.Host)):
		return cfg, drover.Errorf(drover.Invalid, "%q is no host ID: a DNS label is expected", cfg.Host).WithField("host")
	case cfg.Dir == "" || cfg.RunDir == "":
		return cfg, drover.Errorf(drover.Invalid, "the storage daemon needs a pool directory and a run directory")
	case cfg.Floor < 0:
		return cfg, drover.Errorf(drover.Invalid, "the room that is kept free in the pool, %d bytes, is negative", cfg.Floor).WithField("floor")
	case cfg.RoomWait < 0:
		return cfg, drover.Errorf(drover.Invalid, "the time to wait for room, %v, is negative", cfg.RoomWait).WithField("room_wait")
	case cfg.ParentWait < 0:
		return cfg, drover.Errorf(drover.Invalid, "the time to wait for a parent, %v, is negative", cfg.ParentWait).WithField("parent_wait")
	case cfg.UploadLimit < 0:
		return cfg, drover.Errorf(drover.Invalid, "the limit of uploads, %d bytes per second, is negative", cfg.UploadLimit).WithField("upload_limit")
	}
	return cfg, nil
}

// Run serves the pool until ctx ends. Then it ends all connections, makes everything durable and returns nil. It returns
// Conflict when another daemon has the pool, and an error when it cannot begin or a listener fails.
func Run(ctx context.Context, cfg Config) (err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return err
	}
	unlock, err := lockDirs(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()

	listeners, err := listen(cfg)
	if err != nil {
		return err
	}
	p, err := openPool(cfg, dialTLS(cfg.TLSDir, !cfg.Uncompressed))
	if err != nil {
		return errors.Join(err, listeners.close())
	}
	if err := p.resumeVhost(); err != nil {
		return errors.Join(err, listeners.close(), p.close())
	}
	p.resume()
	p.wg.Go(func() { p.scrub(p.ctx) })
	err = serve(ctx, p, listeners)
	return errors.Join(err, p.close())
}

// lockDirs makes sure that nobody else uses the directories.
func lockDirs(cfg Config) (unlock func() error, err error) {
	if err := durable.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot make the pool: %w", err)
	}
	if err := os.MkdirAll(cfg.RunDir, 0o700); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot make the run directory: %w", err)
	}
	pool, err := lockFile(filepath.Join(cfg.Dir, "lock"), "the pool "+cfg.Dir)
	if err != nil {
		return nil, err
	}
	run, err := lockFile(filepath.Join(cfg.RunDir, "storage.lock"), "the run directory "+cfg.RunDir)
	if err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	return func() error { return errors.Join(run.Close(), pool.Close()) }, nil
}

// listeners are all that the daemon is reached by.
type listeners struct {
	control, exports net.Listener
	nbd              []net.Listener
	tls              *tls.Config
}

func (l listeners) close() error {
	var errs []error
	for _, l := range append([]net.Listener{l.control, l.exports}, l.nbd...) {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// listen opens the sockets. The locks are held, so a socket that is there belongs to a daemon that is dead. The exports come first: what
// is most likely to fail must not take a working socket away.
func listen(cfg Config) (l listeners, err error) {
	if cfg.Listen != "" {
		if l.tls, err = fleetca.ServerConfig(cfg.TLSDir); err != nil {
			return l, err
		}
		if l.exports, err = net.Listen("tcp", cfg.Listen); err != nil {
			return l, drover.Errorf(drover.Unavailable, "cannot listen for other hosts: %w", err)
		}
	}
	if l.nbd, err = listenNBD(cfg); err != nil {
		return l, errors.Join(err, l.close())
	}
	control, err := sockets.Listen(filepath.Join(cfg.RunDir, controlSocket))
	if err != nil {
		return l, errors.Join(err, l.close())
	}
	l.control = control
	return l, nil
}

// NBDSocket is where a storage daemon serves VMs and tools over NBD, in its run directory.
func NBDSocket(runDir string) string { return filepath.Join(runDir, nbdSocket) }

// listenNBD returns what VMs and tools connect to.
func listenNBD(cfg Config) (all []net.Listener, err error) {
	path := NBDSocket(cfg.RunDir)
	if cfg.NBD != nil {
		all = append(all, cfg.NBD)
		if found, err := sockets.Private(cfg.NBD, path); err != nil || found {
			return all, err
		}
		// Who connected before is answered still.
		cfg.Log.Warn("the socket that this process was started with was removed or replaced: another one is made, which ends with this process", "path", path)
	}
	l, err := sockets.Listen(path)
	if err != nil {
		return all, err
	}
	return append(all, l), nil
}

// serve answers until ctx ends or a listener fails.
func serve(ctx context.Context, p *pool, l listeners) error {
	group, ctx := errgroup.WithContext(ctx)
	local := nbd.NewServer(nbd.ServerConfig{Opener: opener{p}, Log: p.cfg.Log, Threads: p.cfg.Threads})
	for _, l := range l.nbd {
		group.Go(func() error { return local.Serve(ctx, l) })
	}
	if l.exports != nil {
		remote := nbd.NewServer(nbd.ServerConfig{Opener: opener{p}, TLS: l.tls, Log: p.cfg.Log})
		group.Go(func() error { return remote.Serve(ctx, l.exports) })
	}
	control := &http.Server{Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(stopped)
		// Orders that are under way end in order; they are bounded by the disk's speed. One that waits for a parent is cut.
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := control.Shutdown(stop); err != nil {
			p.cfg.Log.Warn("cannot end the control socket in order", "err", err)
			if err := control.Close(); err != nil {
				p.cfg.Log.Warn("cannot close the control socket", "err", err)
			}
		}
	})
	group.Go(func() error {
		err := control.Serve(l.control)
		if !errors.Is(err, http.ErrServerClosed) {
			return drover.Errorf(drover.Unavailable, "the control socket failed: %w", err)
		}
		<-stopped
		return nil
	})
	p.cfg.Log.Info("storage daemon serves", "pool", p.cfg.Dir, "layers", len(p.all()), "exports", p.cfg.Listen)
	return group.Wait()
}

// dialTLS connects to exports of other hosts with the host's own certificate.
func dialTLS(dir string, compress bool) dialFunc {
	return func(ctx context.Context, export drover.Export, contexts ...string) (remote, error) {
		cfg, err := fleetca.ClientConfig(dir, export.Host)
		if err != nil {
			return nil, err
		}
		return nbd.Dial(ctx, nbd.ClientConfig{Network: "tcp", Address: export.Address, Export: sinceName(export), TLS: cfg, Compress: compress,
			MetaContexts: contexts, DialTimeout: dialTimeout})
	}
}
