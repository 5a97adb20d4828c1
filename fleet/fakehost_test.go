package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"drover"
	"drover/natsbus"
)

// fakeHost is a worker host in memory: it obeys every order at once, remembers what it was told, and can be told to fail.
type fakeHost struct {
	t      *testing.T
	id     drover.HostID
	region drover.Region
	world  *world

	mu       sync.Mutex
	memory   drover.Bytes
	disk     drover.Bytes
	machines map[drover.MachineID]*fakeMachine
	layers   map[drover.LayerID]drover.LayerStatus
	moves    map[drover.MigrationID]*fakeMove
	// fail, when it returns an error, is what an order is answered with; done says whether it is carried out all the same.
	fail func(order drover.Order) (err error, done bool)
	// polls is how often move.progress is asked before everything is hydrated.
	polls int
	// frozen has what was frozen for snapshots and forks; true for what was given up.
	frozen map[drover.LayerID]bool
	// fills has how often a layer is asked about before it is complete.
	fills    map[drover.LayerID]int
	storage  drover.StorageSettings
	standbys map[drover.StandbyID]*fakeStandby
	// dirty is what a machine has written when a round is measured, by the round; stuck: nothing is copied any more. limit is what the host was
	// told last of how much may be copied.
	dirty func(round int) drover.Bytes
	stuck bool
	limit drover.Bytes
	// findings are what checks find beside the usual, kept which disks were left behind by which migration.
	findings []drover.MoveFinding
	kept     map[drover.MigrationID][]drover.DiskID
	// conditions are what the host says of itself.
	conditions []drover.Condition
	// told is what the host was told of the machine that was handed over to it last.
	told drover.MachineStatus

	// mesh is how others reach its machines, peers what it has seen of people's.
	mesh  *drover.HostMesh
	peers []drover.MeshPeer
	// believes is what the host believes of where machines are; nil for a host without a mesh.
	believes *fakeMesh

	stop func()
}

type fakeMachine struct {
	spec    drover.ApplyRequest
	running bool
	status  drover.MachineStatus
}

type fakeMove struct {
	source, held, frozen, adopted, ended bool
	machine                              drover.MachineID
	wasRunning                           bool
	left                                 int
	clones, rounds                       []drover.LayerID
	round                                int
	incoming, lost                       bool
	// turned is the migration that takes this one back, earlier the one that this one takes back, while that is under way.
	turned, earlier     drover.MigrationID
	pausedAt, resumedAt time.Time
}

func newFakeHost(w *world, id drover.HostID, region drover.Region) *fakeHost {
	h := &fakeHost{t: w.t, id: id, region: region, world: w, memory: 8 * drover.GiB, disk: 100 * drover.GiB,
		machines: map[drover.MachineID]*fakeMachine{}, layers: map[drover.LayerID]drover.LayerStatus{}, moves: map[drover.MigrationID]*fakeMove{},
		fail: func(drover.Order) (error, bool) { return nil, false }, polls: 2,
		frozen: map[drover.LayerID]bool{}, fills: map[drover.LayerID]int{}, standbys: map[drover.StandbyID]*fakeStandby{},
		kept: map[drover.MigrationID][]drover.DiskID{}, dirty: func(int) drover.Bytes { return drover.MiB }}
	h.start()
	w.t.Cleanup(func() { h.halt() })
	return h
}

// start connects the host; what it knows was kept.
func (h *fakeHost) start() {
	ctx, cancel := context.WithCancel(context.Background())
	conn := h.world.connect(ctx, string(h.id))
	bus := natsbus.NewHostBus(conn, h.id)
	var group sync.WaitGroup
	for order, handler := range h.handlers() {
		group.Go(func() {
			if err := bus.Serve(ctx, order, h.handler(order, handler)); err != nil && ctx.Err() == nil {
				h.t.Error(err)
			}
		})
	}
	group.Go(func() { h.beat(ctx, bus) })
	var once sync.Once
	h.stop = func() {
		once.Do(func() {
			cancel()
			group.Wait()
			conn.Close()
		})
	}
}

// halt cuts the host off; its machines go on.
func (h *fakeHost) halt() { h.stop() }

func (h *fakeHost) beat(ctx context.Context, bus *natsbus.HostBus) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// The control side may not have made its buckets yet; the next beat tries again.
		seen := h.observe()
		h.mu.Lock()
		info := drover.HostInfo{ID: h.id, Region: h.region, Roles: []drover.Role{drover.RoleWorker}, Memory: h.memory, Disk: h.disk,
			StorageAddress: string(h.id) + ":1", Observations: seen, Mesh: h.mesh, RoutesDigest: h.believes.tells(), Conditions: h.conditions}
		h.mu.Unlock()
		_ = bus.PublishInfo(ctx, info)
		h.publishAll(ctx, bus)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (h *fakeHost) publishAll(ctx context.Context, bus *natsbus.HostBus) {
	h.mu.Lock()
	var all []drover.MachineStatus
	for _, m := range h.machines {
		all = append(all, m.status)
	}
	h.mu.Unlock()
	for _, s := range all {
		if s.Epoch != 0 && ctx.Err() == nil {
			_ = bus.PublishStatus(ctx, s) // stale ones are refused, and the rest comes again
		}
	}
}

type fakeHandler func(request []byte) (any, error)

func (h *fakeHost) handler(order drover.Order, do fakeHandler) func(context.Context, []byte) (any, error) {
	return func(ctx context.Context, request []byte) (any, error) {
		h.mu.Lock()
		fail := h.fail
		h.mu.Unlock()
		err, done := fail(order)
		if err != nil && !done {
			return nil, err
		}
		h.mu.Lock()
		answer, derr := do(request)
		h.mu.Unlock()
		if err != nil {
			return nil, err
		}
		return answer, derr
	}
}

// set changes the host under its lock.
func (h *fakeHost) set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

// failing makes orders fail with a code, until it is called with none.
func (h *fakeHost) failing(code drover.Code, done bool, orders ...drover.Order) {
	h.set(func() {
		h.fail = func(o drover.Order) (error, bool) {
			if code != "" && slices.Contains(orders, o) {
				return drover.Errorf(code, "%s on %s fails by order of the test", o, h.id), done
			}
			return nil, false
		}
	})
}

func (h *fakeHost) running(id drover.MachineID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.machines[id]
	return m != nil && m.running
}

func (h *fakeHost) handlers() map[drover.Order]fakeHandler {
	return map[drover.Order]fakeHandler{
		drover.OrderOffer:          h.offer,
		drover.OrderResolve:        h.resolve,
		drover.OrderApply:          h.apply,
		drover.OrderLayers:         h.list,
		drover.OrderVolumeCreate:   h.volumeCreate,
		drover.OrderVolumeDestroy:  h.volumeDestroy,
		drover.OrderVolumeSnapshot: h.snapshot, drover.OrderVolumeSnapshotEnd: h.snapshotEnd, drover.OrderVolumeFork: h.fork,
		drover.OrderVolumeForkEnd: h.forkEnd, drover.OrderVolumeResize: h.resize, drover.OrderVolumeLimits: h.limits,
		drover.OrderVolumeHydration: h.hydration, drover.OrderVolumeVerify: h.verify, drover.OrderVolumeStatus: h.volumeStatus,
		drover.OrderStorageSettings: h.settings,
		drover.OrderMeshPeers:       func([]byte) (any, error) { return drover.MeshPeersAnswer{Peers: h.peers}, nil },
		drover.OrderMeshStatus:      func([]byte) (any, error) { return drover.MeshStatus{Mesh: h.mesh}, nil },
		drover.OrderMeshRoutes:      func([]byte) (any, error) { return h.believes.list(nil) },
		drover.OrderRecoveryMake:    h.recoveryMake,
		drover.OrderStandbyFreeze:   h.standbyFreeze, drover.OrderStandbyRelease: h.standbyRelease,
		drover.OrderStandbyCopy: h.standbyCopy, drover.OrderStandbyDrop: h.standbyDrop,
		drover.OrderRecoveryDrop: h.recoveryDrop,
		drover.OrderRecoveryKept: func([]byte) (any, error) { return []drover.KeptLayer{}, nil },
		drover.OrderMoveReserve:  h.reserve,
		drover.OrderMoveExport:   h.export,
		drover.OrderMoveClone:    h.clone,
		drover.OrderMoveQuiesce:  h.quiesce,
		drover.OrderMoveRound:    h.round, drover.OrderMoveCopy: h.copy, drover.OrderMoveIncoming: h.incoming, drover.OrderMoveLive: h.live,
		drover.OrderMoveWriteOff: h.writeOff, drover.OrderMoveUndo: h.undo, drover.OrderMoveCheck: h.check,
		drover.OrderMoveFreeze:   h.freeze,
		drover.OrderMoveActivate: h.activate,
		drover.OrderMoveProgress: h.progress,
		drover.OrderMoveRelease:  h.release,
		drover.OrderMoveAbort:    h.abort,
		drover.OrderLogs: func(b []byte) (any, error) {
			return drover.LogsAnswer{Lines: []drover.LogLine{{Stream: "stdout", Text: "said by " + string(decode[drover.LogsRequest](b).Machine)}}, Next: 1}, nil
		},
		drover.OrderExec: func(b []byte) (any, error) {
			return drover.ExecResult{Stdout: []byte("hello from " + h.id)}, nil
		},
	}
}

func decode[T any](b []byte) T {
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		panic(err)
	}
	return v
}

func (h *fakeHost) offer(b []byte) (any, error) {
	req := decode[drover.OfferRequest](b)
	used := drover.Bytes(0)
	for id, m := range h.machines {
		if id != req.Machine {
			used += drover.Bytes(m.spec.Machine.Config.Guest.MemoryMB) * drover.MiB
		}
	}
	o := drover.Offer{Host: h.id, Region: h.region, MemoryFree: h.memory - used, DiskFree: h.disk, Disk: h.disk, Machines: len(h.machines)}
	if req.Provision > 3*h.disk {
		o.Reasons = append(o.Reasons, fmt.Sprintf("volumes of %d GiB are more than 3 times the disk of %d GiB", req.Provision/drover.GiB, h.disk/drover.GiB))
	}
	if need := drover.Bytes(req.MemoryMB) * drover.MiB; need > o.MemoryFree {
		o.Reasons = append(o.Reasons, fmt.Sprintf("%d MiB of memory free, %d MiB needed", o.MemoryFree/drover.MiB, req.MemoryMB))
	}
	if len(o.Reasons) == 0 && req.MemoryMB > 0 {
		o.Fits = int(o.MemoryFree / (drover.Bytes(req.MemoryMB) * drover.MiB))
	}
	if req.Disk > o.DiskFree {
		o.Reasons = append(o.Reasons, fmt.Sprintf("%d GiB of disk free, %d GiB needed", o.DiskFree/drover.GiB, req.Disk/drover.GiB))
	}
	return o, nil
}

func (h *fakeHost) resolve(b []byte) (any, error) {
	req := decode[drover.ResolveRequest](b)
	if req.Image == "missing" {
		return nil, drover.Errorf(drover.NotFound, "image %q does not exist", req.Image)
	}
	return drover.ResolvedImage{ImageRef: drover.ImageRef{Repository: req.Image, Digest: "sha256:00"}, CompressedSize: 12345}, nil
}

func (h *fakeHost) apply(b []byte) (any, error) {
	req := decode[drover.ApplyRequest](b)
	id := req.Machine.ID
	m := h.machines[id]
	if m == nil {
		if req.Machine.Goal == drover.GoalDestroyed {
			return drover.MachineStatus{Machine: id, Host: h.id, Epoch: req.Epoch, State: drover.StateDestroyed}, nil
		}
		m = &fakeMachine{}
		h.machines[id] = m
		h.layer(drover.RootDisk(id), "")
	}
	if req.Epoch < m.spec.Epoch {
		return nil, drover.Errorf(drover.Conflict, "epoch %d is older than %d", req.Epoch, m.spec.Epoch)
	}
	for _, mv := range h.moves {
		if mv.machine == id && mv.source && mv.held && !mv.ended {
			return nil, drover.Errorf(drover.Conflict, "machine %q is held by a migration", id)
		}
	}
	// Asked again, a host has nothing to do, whatever became of the machine since.
	was, want := m.spec, req.Machine
	known := was.Epoch == req.Epoch && was.Machine.Goal == want.Goal && was.Machine.Run == want.Run && was.Machine.Instance == want.Instance
	if m.spec = req; !known {
		h.settle(m)
	}
	if want.Goal == drover.GoalDestroyed {
		delete(h.machines, id)
		h.dropLayers(drover.RootDisk(id))
	}
	return m.status, nil
}

// settle makes the machine what it should be.
func (h *fakeHost) settle(m *fakeMachine) {
	want := m.spec.Machine
	m.running = want.Goal == drover.GoalStarted
	state := map[drover.Goal]drover.MachineState{drover.GoalStarted: drover.StateStarted, drover.GoalStopped: drover.StateStopped,
		drover.GoalSuspended: drover.StateSuspended, drover.GoalDestroyed: drover.StateDestroyed}[want.Goal]
	m.status = drover.MachineStatus{Machine: want.ID, Host: h.id, Epoch: m.spec.Epoch, State: state, Instance: want.Instance, Run: want.Run, UpdatedAt: time.Now()}
	h.dropLayers(drover.MemoryDisk(want.ID))
	if want.Goal == drover.GoalSuspended {
		h.layer(drover.MemoryDisk(want.ID), "")
	}
	if m.running {
		m.status.StartedAt = time.Now()
		h.world.ran(want.ID, h.id, m.spec.Epoch)
	}
	// A command that ends by itself says in its environment how.
	if code, err := strconv.Atoi(want.Config.Env["EXIT"]); err == nil && m.running {
		m.running, m.status.State, m.status.ExitCode = false, drover.StateStopped, &code
	}
}

func (h *fakeHost) layer(d drover.DiskID, mig drover.MigrationID) {
	id := drover.LayerFor(d, mig)
	h.layers[id] = drover.LayerStatus{ID: id, Disk: d, State: drover.LayerReady, Size: drover.GiB, Allocated: 100 * drover.MiB}
}

func (h *fakeHost) dropLayers(d drover.DiskID) {
	for id, l := range h.layers {
		if _, frozen := h.frozen[id]; l.Disk == d && !frozen {
			delete(h.layers, id)
		}
	}
}

func (h *fakeHost) list([]byte) (any, error) {
	layers := []drover.LayerStatus{}
	for _, l := range h.layers {
		layers = append(layers, l)
	}
	return layers, nil
}
