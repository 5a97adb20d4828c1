package host

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover"
	"drover/boltstore"
)

// world is a fleet in memory: what outlives agents. Agents reach it through sessions, which can be cut.
type world struct {
	t    *testing.T
	mu   sync.Mutex
	wg   sync.WaitGroup
	host map[drover.HostID]*fakeHost

	revision   drover.Epoch
	placements map[drover.MachineID]drover.Placement
	machines   map[drover.MachineID]drover.Machine
	migrations map[drover.MigrationID]drover.Migration
	status     map[drover.MachineID]drover.MachineStatus
	events     map[string]drover.Event
	busDown    bool
	// controlDown: the bus is there, and no control host. placementReads counts how often placements were read from the store.
	controlDown    bool
	placementReads int
	keysDown       bool // no control host hands out keys
	secrets        drover.SecretValues
	twice          bool // every order is given twice
	connected      chan struct{}
	// onHit is called at each fault point; nil for nothing. silence is how long the controller says nothing before it asks again, once.
	onHit   func(h *fakeHost, point string)
	silence time.Duration
	// lives counts how often a guest began to execute, or went on.
	lives int
}

// fakeHost is one host's reality.
type fakeHost struct {
	w    *world
	id   drover.HostID
	data string
	run  string
	db   string

	layers map[drover.LayerID]*fakeLayer
	keys   map[drover.KeyID]string // what the storage daemon knows; gone with the power
	asked  int                     // how often the agent asked for a key
	fences map[drover.DiskID]drover.Epoch
	vms    map[drover.MachineID]*fakeVM
	taps   map[drover.MachineID]bool
	// policies are what the kernel was told.
	policies map[drover.MachineID]drover.MachinePolicy
	reports  map[string][]report
	configs  map[string]string
	env      map[string][]string // what the guest was told, by the path of its config
	logs     bytes.Buffer        // what the agents of the host wrote to their log
	booted   int
	boot     func(n int) bootPlan
	images   error // what Ensure fails with
	ensured  int
	free     drover.Bytes
	// hangs is open while the disk hangs, fails is what its trial ends with.
	hangs chan struct{}
	fails error
	// grace is how long it keeps its copy after a migration; testGrace if 0.
	grace time.Duration
	// lifeOf is which life of its guest had the disks of a machine last: another one's memory does not fit to them. hollow lets what is written of a
	// VM be of no use to another, full lets the disk for it have no room.
	lifeOf       map[drover.MachineID]int
	hollow, full bool
	clockSet     int // how often a guest's clock was set
	platform     string
	// wiped lists layers that were made unreadable, settings what was set for the storage; vmSizes is what VMs were told of their disks.
	wiped    map[drover.LayerID]bool
	settings drover.StorageSettings
	// uploadedFrom is what the last upload was asked for with.
	uploadedFrom drover.SnapshotSource
	vmSizes      map[int]drover.Bytes
	// guestFrozen is not 0 while a guest's file system is frozen; guestGrown counts how often one was made larger.
	guestFrozen, guestGrown int

	power bool // a cut agent takes the whole host with it
	// away: nothing gets to the host or comes from it. noPeers: its storage daemon and others do not reach each other. noStorage: its
	// storage daemon does not answer.
	away, noPeers, noStorage bool

	agent *Agent
	sess  *session
	ended chan error
}

type fakeLayer struct {
	spec   LayerSpec
	status drover.LayerStatus
	// prepared is what the layer was prepared for.
	prepared string
	content  string // who wrote last: tells a lost write
	// data is what is durable of it, fresh what was written since; dirty says that its machine has written, lost that a power cut took some of that.
	data, fresh map[int64][]byte
	dirty, lost bool
	exports     map[drover.HostID]bool
}

// bootPlan is what a VM does.
type bootPlan struct {
	start time.Duration // until the main process runs; negative: it never does
	exit  time.Duration // from then until it ends by itself; 0: never
	code  int
	crash bool // the VM ends without a word
	deaf  bool // it takes no stop
	// blocker is why it cannot move live.
	blocker string
	old     bool // it knows neither freeze nor resize
	stopIn  time.Duration
}

var defaultBoot = func(int) bootPlan { return bootPlan{start: time.Second, stopIn: 200 * time.Millisecond} }

func newWorld(t *testing.T, ids ...drover.HostID) *world {
	w := &world{t: t, host: map[drover.HostID]*fakeHost{}, revision: 10, placements: map[drover.MachineID]drover.Placement{},
		machines: map[drover.MachineID]drover.Machine{}, migrations: map[drover.MigrationID]drover.Migration{},
		status: map[drover.MachineID]drover.MachineStatus{}, events: map[string]drover.Event{}, connected: make(chan struct{})}
	for _, id := range ids {
		dir := scratch(t)
		w.host[id] = &fakeHost{w: w, id: id, data: filepath.Join(dir, "data"), run: filepath.Join(dir, "run"), db: filepath.Join(dir, "agent.db"),
			layers: map[drover.LayerID]*fakeLayer{}, keys: map[drover.KeyID]string{}, fences: map[drover.DiskID]drover.Epoch{}, vms: map[drover.MachineID]*fakeVM{},
			taps: map[drover.MachineID]bool{}, policies: map[drover.MachineID]drover.MachinePolicy{}, reports: map[string][]report{}, configs: map[string]string{}, env: map[string][]string{}, boot: defaultBoot,
			lifeOf: map[drover.MachineID]int{}, platform: "fake 1", free: 100 * drover.GiB, wiped: map[drover.LayerID]bool{}, vmSizes: map[int]drover.Bytes{}}
	}
	return w
}

// scratch is a directory in memory, because journals sync at every write.
func scratch(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "host-test-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// session is one agent's way to the world. At the cutAt-th effect it dies: nothing that the agent does reaches the world any more.
type session struct {
	h      *fakeHost
	mu     sync.Mutex
	n      int
	cutAt  int // 0: never
	dead   bool
	cancel context.CancelFunc
	where  string
	// fail answers the next calls of a name with an error.
	fail map[string]error
	// hits counts fault points.
	hits map[string]int
}

var errCut = errors.New("cut")

// step counts an effect and says whether the agent lives on. The effect is done in between two steps.
func (s *session) step(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errCut
	}
	s.n++
	if s.n == s.cutAt {
		s.dead, s.where = true, name
		s.cancel()
		return errCut
	}
	return nil
}

// effect runs fn under the world's lock, with a possible cut before and after.
func (s *session) effect(name string, fn func() error) error {
	s.mu.Lock()
	forced := s.fail[name]
	s.mu.Unlock()
	if err := s.step("before " + name); err != nil {
		return err
	}
	if forced != nil {
		return forced
	}
	s.h.w.mu.Lock()
	var err error
	if s.h.noStorage && isStorage(name) {
		err = drover.Errorf(drover.Unavailable, "the storage daemon does not answer")
	} else {
		err = fn()
	}
	s.h.w.mu.Unlock()
	if cut := s.step("after " + name); cut != nil {
		return cut
	}
	return err
}

// hit passes a fault point.
func (s *session) hit(point string) {
	s.mu.Lock()
	s.hits[point]++
	dead := s.dead
	s.mu.Unlock()
	if s.h.w.onHit != nil && !dead {
		s.h.w.onHit(s.h, point)
	}
}

// elsewhere are the beginnings of the names of effects that are not the storage daemon's.
var elsewhere = []string{"vm-", "kill", "guest-", "attach", "detach", "write-config", "ensure-image"}

func isStorage(name string) bool {
	return !slices.ContainsFunc(elsewhere, func(begin string) bool { return strings.HasPrefix(name, begin) })
}

// look is an effect that changes nothing.
func (s *session) look(fn func() error) error {
	s.mu.Lock()
	dead := s.dead
	s.mu.Unlock()
	if dead {
		return errCut
	}
	s.h.w.mu.Lock()
	defer s.h.w.mu.Unlock()
	return fn()
}

// up starts an agent on the host. cutAt is the effect at which it dies; 0 for never.
func (h *fakeHost) up(cutAt int) {
	h.w.t.Helper()
	store, err := boltstore.Open(h.db)
	if err != nil {
		h.w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.w.t.Context())
	s := &session{h: h, cutAt: cutAt, cancel: cancel, fail: map[string]error{}, hits: map[string]int{}}
	agent, err := New(Config{ID: h.id, Region: "r1", Address: "10.0.0.1", StorageAddress: string(h.id) + ":4290", DataDir: h.data, RunDir: h.run,
		Memory: 4 * drover.GiB, CPUs: 4, Version: "test", Accel: drover.AccelTCG, VMMName: "fake",
		Platform: h.platform, GuestCPU: "fake", LayerDial: func(_ context.Context, at Attachment) (LayerData, error) { return s.layerDial(at) },
		Storage: fakeStorage{s}, VMM: fakeVMM{s}, Images: fakeImages{s}, Network: fakeNetwork{s}, Bus: fakeBus{s}, Keys: fakeKeys{s}, Secrets: fakeSecrets{s},
		GuestDial: func(ctx context.Context, socket string) (Guest, error) { return s.dial(socket) },
		Store:     store, Log: testLog(h), BootTimeout: 10 * time.Second, Grace: cmp.Or(h.grace, testGrace), KeepAside: testKeepAside,
		DiskSpace: func(string) (drover.Bytes, drover.Bytes, error) {
			h.w.mu.Lock()
			defer h.w.mu.Unlock()
			return 200 * drover.GiB, h.free, nil
		},
		DiskProbe: func(string) error { return h.probe() },
		files:     fakeFiles{s}, journal: func() error { return s.step("journal") },
		hit: s.hit})
	if err != nil {
		h.w.t.Fatal(err)
	}
	h.agent, h.sess, h.ended = agent, s, make(chan error, 1)
	h.w.wg.Go(func() {
		err := agent.Run(ctx)
		cancel()
		if cerr := store.Close(); cerr != nil {
			h.w.t.Error(cerr)
		}
		h.ended <- err
	})
}

// The times that layers are kept for are short, so that a test sees their end.
const (
	testGrace     = 30 * time.Second
	testKeepAside = 2 * time.Hour
)

func testLog(h *fakeHost) *slog.Logger {
	if os.Getenv("HOST_TEST_LOG") == "" {
		return slog.New(slog.NewTextHandler(&h.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("host", string(h.id))
}

// down ends the agent in an orderly way.
func (h *fakeHost) down() {
	h.sess.cancel()
	if err := <-h.ended; err != nil && !errors.Is(err, errCut) {
		h.w.t.Errorf("host %s: the agent ended with %v", h.id, err)
	}
	h.agent = nil
}

// powerCut ends the agent and every VM of the host without a word.
func (h *fakeHost) powerCut() {
	h.w.t.Helper()
	h.sess.mu.Lock()
	h.sess.dead = true
	h.sess.mu.Unlock()
	h.down()
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	for _, vm := range h.vms {
		vm.endLocked("power cut")
	}
	for _, l := range h.layers {
		l.status.Writer, l.fresh, l.lost, l.dirty = 0, nil, l.lost || l.dirty, false
	}
	clear(h.taps)
	clear(h.keys)
	if err := os.RemoveAll(filepath.Join(h.run, "machines")); err != nil {
		h.w.t.Error(err)
	}
}

// close ends everything of the world.
func (w *world) close() {
	for _, h := range w.host {
		if h.agent != nil {
			h.down()
		}
	}
	w.mu.Lock()
	for _, h := range w.host {
		for _, vm := range h.vms {
			vm.endLocked("the test is over")
		}
	}
	w.mu.Unlock()
	w.wg.Wait()
}

// bubble runs a test in a world with fake time.
func bubble(t *testing.T, fn func(t *testing.T, w *world), ids ...drover.HostID) {
	t.Helper()
	if len(ids) == 0 {
		ids = []drover.HostID{"h1"}
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ids...)
		defer w.close()
		fn(t, w)
	})
}

// pass lets fake time pass, and everybody come to rest: until the test waits again, nothing moves.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// running tells on which hosts a VM of the machine runs.
func (w *world) running(id drover.MachineID) []drover.HostID {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []drover.HostID
	for hid, h := range w.host {
		if vm := h.vms[id]; vm != nil && vm.runs() {
			out = append(out, hid)
		}
	}
	return out
}

// check looks at the whole world for what must never be. It is called when everything has come to rest.
func (w *world) check() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for hid, h := range w.host {
		for id := range h.vms {
			if p := w.placements[id]; p.Host != hid {
				w.t.Errorf("host %s runs machine %s, which is placed on %q", hid, id, p.Host)
			}
		}
		for id := range h.taps {
			if h.vms[id] == nil {
				w.t.Errorf("host %s has a tap of machine %s, which does not run", hid, id)
			}
		}
		for id, l := range h.layers {
			if l.status.Writer != 0 && h.vms[machineOf(w, l.spec.Disk)] == nil {
				w.t.Errorf("host %s: layer %s is open at %d, and no VM runs", hid, id, l.status.Writer)
			}
		}
	}
	for id, s := range w.status {
		seen := map[string]bool{}
		for _, e := range s.Events {
			if seen[e.ID] {
				w.t.Errorf("machine %s: event %s is told twice", id, e.ID)
			}
			seen[e.ID] = true
		}
	}
}

// machineOf tells which machine has the disk.
func machineOf(w *world, disk drover.DiskID) drover.MachineID {
	for id, m := range w.machines {
		if disk == drover.RootDisk(id) {
			return id
		}
		for _, mount := range m.Config.Mounts {
			if mount.Volume.Disk() == disk {
				return id
			}
		}
	}
	return ""
}

func (h *fakeHost) describe() string {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	s := fmt.Sprintf("%s: vms %d taps %d", h.id, len(h.vms), len(h.taps))
	for id, l := range h.layers {
		s += fmt.Sprintf("\n  %s %+v exports %v", id, l.status, l.exports)
	}
	return s
}

// walked shows a crash walk as it goes, when asked to.
func walked(t *testing.T, k int, where string, more ...any) {
	if os.Getenv("HOST_TEST_WALK") != "" {
		t.Log(append([]any{k, where}, more...)...)
	}
}
