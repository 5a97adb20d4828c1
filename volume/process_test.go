package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"testing"
	"time"

	"drover"
	"drover/internal/fault"
	"drover/internal/sockets"
	"drover/nbd"
)

// envDaemon makes this test binary a storage daemon with the Config in it.
const envDaemon = "TEST_STORAGE_DAEMON"

func TestMain(m *testing.M) {
	if text := os.Getenv(envDaemon); text != "" {
		os.Exit(daemonMain(text))
	}
	os.Exit(m.Run())
}

func daemonMain(text string) int {
	var cfg Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg.Faults = fault.FromEnv(os.Getenv)
	inherited, err := sockets.Inherited(os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg.NBD = inherited
	if dir := os.Getenv(envObjects); dir != "" {
		cfg.Objects = dirStore{dir}
	}
	ctx, stop := ossignal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := Run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// processHost is a host whose daemon is a process that can be killed.
type processHost struct {
	*testHost
	faults string
	env    []string
	cmd    *exec.Cmd
	gone   chan struct{}
	boots  int
	// held is the socket that the daemon is started with; nil for none.
	held *sockets.Held
}

func newProcessHost(t testing.TB, h *testHost) *processHost {
	p := &processHost{testHost: h, faults: t.TempDir()}
	t.Cleanup(p.kill)
	return p
}

// spawn starts the daemon's process; await waits until it answers.
func (p *processHost) spawn() {
	p.tb.Helper()
	if p.held == nil {
		p.spawnWith(nil)
		return
	}
	p.spawnWith(must[*os.File](p.tb)(p.held.File()))
}

// spawnWith is spawn with a listening socket, nil for none.
func (p *processHost) spawnWith(socket *os.File) {
	p.tb.Helper()
	cfg := p.cfg
	cfg.Log = nil
	text := must[[]byte](p.tb)(json.Marshal(cfg))
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), envDaemon+"="+string(text), fault.EnvDir+"="+p.faults)
	p.cmd.Env = append(p.cmd.Env, p.env...)
	if socket != nil {
		p.cmd.Env, p.cmd.ExtraFiles = append(p.cmd.Env, sockets.Env("nbd")...), []*os.File{socket}
	}
	p.cmd.Stderr = p.tb.Output()
	noErr(p.tb, p.cmd.Start())
	p.gone = make(chan struct{})
	go func(cmd *exec.Cmd, gone chan struct{}) {
		defer close(gone)
		_ = cmd.Wait() // how it ended is of no interest: it is killed
	}(p.cmd, p.gone)
}

func (p *processHost) start() {
	p.tb.Helper()
	p.spawn()
	eventually(p.tb, func() error { _, err := p.Layers(p.tb.Context()); return err })
}

func (p *processHost) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill() // it may be gone already
		<-p.gone
	}
}

// powerCut kills the process and removes what is on tmpfs; the next start is another boot.
func (p *processHost) powerCut() {
	p.tb.Helper()
	p.kill()
	p.boots++
	p.cfg.Boot = fmt.Sprint("boot ", p.boots)
	noErr(p.tb, os.RemoveAll(p.cfg.RunDir))
}

// cloneOnProcess makes a clone of a volume with some data, on a daemon in a process of its own.
func cloneOnProcess(t *testing.T) (p *processHost, model []byte) {
	ca := newCA(t)
	h1 := newHost(t, ca, "h1")
	p = newProcessHost(t, prepareHost(t, ca, "h2"))
	model = make([]byte, 4*mib)
	h1.create("vol_a", drover.Bytes(len(model)))
	c := h1.open("vol_a", 1)
	copy(model[mib:], pattern(1, 2*mib))
	noErr(t, c.WriteAt(t.Context(), model[mib:3*mib], mib, false))
	e := h1.export("vol_a", "h2")
	p.start()
	p.clone("vol_a.m", e, "")
	return p, model
}

// Nothing that was acknowledged is lost when the process is killed, flushed or not.
func TestKilledDaemonLosesNothingAcknowledged(t *testing.T) {
	p, model := cloneOnProcess(t)
	c := p.open("vol_a.m", 2)
	r := rand.New(rand.NewPCG(5, 5))
	for round := range 4 {
		if round == 2 {
			noErr(t, p.Hydrate(t.Context(), "vol_a.m", 8*drover.MiB))
		}
		for i := range 60 {
			n := 1 + r.Int64N(30000)
			off := r.Int64N(int64(len(model)) - n)
			if i%3 == 0 {
				noErr(t, c.Discard(t.Context(), off, n, false))
				clear(model[off : off+n])
				continue
			}
			w := pattern(r.Uint64(), n)
			noErr(t, c.WriteAt(t.Context(), w, off, false))
			copy(model[off:], w)
		}
		p.kill()
		p.start()
		c = p.dial("vol_a.m@2")
		got := make([]byte, len(model))
		noErr(t, c.ReadAt(t.Context(), got, 0))
		if !bytes.Equal(got, model) {
			t.Fatalf("round %d: something acknowledged is gone", round)
		}
	}
}

// After a power cut whatever was flushed is there; the page cache stands in for the disk here, so that what was not flushed may be
// there too, but never zeroes where the parent has data.
func TestPowerCutLosesNothingFlushed(t *testing.T) {
	p, model := cloneOnProcess(t)
	c := p.open("vol_a.m", 2)
	flushed := pattern(7, 100000)
	noErr(t, c.WriteAt(t.Context(), flushed, 5000, false))
	copy(model[5000:], flushed)
	noErr(t, c.Flush(t.Context()))
	noErr(t, c.WriteAt(t.Context(), pattern(8, 10*blockSize), 2*mib, false)) // not flushed, over data of the parent
	p.powerCut()
	p.start()
	c = p.open("vol_a.m", 2)
	got := make([]byte, len(model))
	noErr(t, c.ReadAt(t.Context(), got, 0))
	copy(model[2*mib:], got[2*mib:2*mib+10*blockSize]) // checked below
	if !bytes.Equal(got, model) {
		t.Fatal("what was flushed is gone, or what the parent has was lost")
	}
	for b := range int64(10) {
		at := 2*mib + b*blockSize
		if !bytes.Equal(got[at:at+blockSize], pattern(1, 2*mib)[mib+b*blockSize:mib+(b+1)*blockSize]) &&
			!bytes.Equal(got[at:at+blockSize], pattern(8, 10*blockSize)[b*blockSize:(b+1)*blockSize]) {
			t.Errorf("block %d is neither the parent's nor what was written", b)
		}
	}
}

// crashPoints are the places of Config.Faults.
var crashPoints = []string{"volume.create.filled", "volume.create.installed", "volume.fence.raised", "volume.flush.data-synced",
	"volume.flush.map-synced", "volume.close.flushed", "volume.hydrate.copied", "volume.hydrate.complete", "volume.delete.renamed"}

// Wherever the process is killed, the same orders again lead to the same end.
func TestOrdersAreRepeatedAfterACrashAtAnyPoint(t *testing.T) {
	for _, point := range crashPoints {
		t.Run(point, func(t *testing.T) {
			ca := newCA(t)
			h1 := newHost(t, ca, "h1")
			p := newProcessHost(t, prepareHost(t, ca, "h2"))
			h1.create("vol_a", 4*drover.MiB)
			noErr(t, h1.open("vol_a", 1).WriteAt(t.Context(), pattern(1, mib), mib, false))
			e := h1.export("vol_a", "h2")
			noErr(t, fault.Arm(p.faults, point, "process"))
			p.start()
			for try := 0; ; try++ {
				err := walkThroughLife(t, p, e)
				if err == nil {
					break
				}
				if try == 3 {
					t.Fatalf("still failing: %v", err)
				}
				t.Logf("killed: %v", err)
				p.kill()
				p.start()
			}
			if _, err := os.Stat(filepath.Join(p.faults, point)); err == nil {
				t.Error("the point was not reached")
			}
			if all := must[[]drover.LayerStatus](t)(p.Layers(t.Context())); len(all) != 0 {
				t.Errorf("layers are left: %+v", all)
			}
			p.tidy()
		})
	}
}

// walkThroughLife makes, uses, fills, closes and deletes a clone. It may be begun again after it failed anywhere.
func walkThroughLife(t *testing.T, p *processHost, e *drover.Export) error {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := p.CreateLayer(ctx, drover.LayerSpec{ID: "vol_a.m", Disk: e.Disk, Size: e.Size, Parent: e}); err != nil {
		return err
	}
	a, err := p.Open(ctx, "vol_a.m", 2)
	if err != nil {
		return err
	}
	c, err := nbd.Dial(ctx, nbd.ClientConfig{Network: "unix", Address: a.Socket, Export: a.Export})
	if err != nil {
		return err
	}
	defer c.Close()
	want := pattern(9, 100000)
	if err := errors.Join(c.WriteAt(ctx, want, 3*mib, false), c.Flush(ctx)); err != nil {
		return err
	}
	if err := p.Hydrate(ctx, "vol_a.m", 0); err != nil {
		return err
	}
	for {
		s, err := p.Layer(ctx, "vol_a.m")
		if err != nil {
			return err
		}
		if s.Hydration.Done {
			break
		}
		if err := waitFor(ctx, nil, time.Millisecond); err != nil {
			return err
		}
	}
	got := make([]byte, 4*mib)
	if err := c.ReadAt(ctx, got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got[mib:2*mib], pattern(1, mib)) || !bytes.Equal(got[3*mib:3*mib+100000], want) || !isZero(got[:mib]) {
		t.Fatal("the clone holds something else")
	}
	if err := p.Close(ctx, "vol_a.m"); err != nil {
		return err
	}
	return p.Delete(ctx, "vol_a.m")
}
