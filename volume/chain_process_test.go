package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/internal/fault"
	"drover/nbd"
)

// chainPoints are the places of Config.Faults that the life of a chain comes by.
var chainPoints = []string{"volume.split.prepared", "volume.split.ready", "volume.split.committed", "volume.unwanted.marked",
	"volume.take-in.marked", "volume.take-in.copied", "volume.take-in.committed", "volume.resize.ready", "volume.resize.committed",
	"volume.hydrate.complete", "volume.delete.renamed", "volume.wipe.part", "volume.flush.map-synced"}

// chainLife is the life of a volume that is split, forked, resized, taken in and wiped. Each step may be begun again after it was cut.
type chainLife struct {
	p     *processHost
	next  int
	model []byte
	first []byte // what the first frozen layer has
}

func (c *chainLife) steps() []func(context.Context) error {
	p := c.p
	return []func(context.Context) error{
		func(ctx context.Context) error {
			_, err := p.CreateLayer(ctx, drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: 4 * drover.MiB})
			return err
		},
		func(ctx context.Context) error { return c.write(ctx, 1, 100, 2*mib) },
		func(ctx context.Context) error { c.first = bytes.Clone(c.model); return c.split(ctx, "vol_a.s1") },
		func(ctx context.Context) error { return c.write(ctx, 2, mib-77, 300000) },
		func(ctx context.Context) error { return c.split(ctx, "vol_a.s2") },
		func(ctx context.Context) error { return c.write(ctx, 3, 3*mib+5, 100000) },
		c.fork,
		func(ctx context.Context) error { return c.resize(ctx, 5*drover.MiB) },
		func(ctx context.Context) error { return c.write(ctx, 4, 4*mib-9, mib/2) },
		func(ctx context.Context) error { return p.Delete(ctx, "vol_a.s1") },
		func(ctx context.Context) error { return p.Delete(ctx, "vol_a.s2") },
		func(ctx context.Context) error { return c.write(ctx, 5, 2*mib, 200000) },
		func(ctx context.Context) error { return c.alone(ctx) },
		c.check,
		func(ctx context.Context) error { return p.Close(ctx, "vol_a") },
		func(ctx context.Context) error { return p.Wipe(ctx, "vol_a") },
		func(ctx context.Context) error { return c.empty(ctx) },
	}
}

// run goes on with the step that was cut.
func (c *chainLife) run(t *testing.T) error {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for steps := c.steps(); c.next < len(steps); c.next++ {
		if err := steps[c.next](ctx); err != nil {
			return fmt.Errorf("step %d: %w", c.next, err)
		}
	}
	return nil
}

func (c *chainLife) dial(ctx context.Context) (*nbd.Client, error) {
	a, err := c.p.Open(ctx, "vol_a", 1)
	if err != nil {
		return nil, err
	}
	return nbd.Dial(ctx, nbd.ClientConfig{Network: "unix", Address: a.Socket, Export: a.Export})
}

// write changes a range and discards a little before it.
func (c *chainLife) write(ctx context.Context, seed uint64, off, n int64) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if len(c.model) == 0 {
		c.model = make([]byte, 4*mib)
	}
	p := pattern(seed, n)
	copy(c.model[off:], p)
	clear(c.model[off/2 : off/2+5000])
	return errors.Join(conn.WriteAt(ctx, p, off, false), conn.Discard(ctx, off/2, 5000, false), conn.Flush(ctx))
}

func (c *chainLife) split(ctx context.Context, into drover.LayerID) error {
	_, err := c.p.Split(ctx, "vol_a", into)
	return err
}

func (c *chainLife) resize(ctx context.Context, size drover.Bytes) error {
	if err := c.p.Resize(ctx, "vol_a", size); err != nil {
		return err
	}
	c.model = append(c.model, make([]byte, int(size)-len(c.model))...)
	return nil
}

// fork makes a fork of the first frozen layer, fills it, looks at it, and deletes it.
func (c *chainLife) fork(ctx context.Context) error {
	parent := &drover.Export{Layer: "vol_a.s1", Size: 4 * drover.MiB, Host: c.p.id}
	_, err := c.p.CreateLayer(ctx, drover.LayerSpec{ID: "vol_f", Disk: "vol_f", Size: 6 * drover.MiB, Parent: parent})
	if err == nil {
		_, err = c.p.Open(ctx, "vol_f", 1)
	}
	if err == nil {
		err = c.p.Hydrate(ctx, "vol_f", 0)
	}
	if err == nil {
		err = await(ctx, func() (bool, error) {
			s, err := c.p.Layer(ctx, "vol_f")
			return err == nil && s.Hydration.Done, err
		})
	}
	if err == nil {
		err = c.compare(ctx, "vol_f@1", append(bytes.Clone(c.first), make([]byte, 2*mib)...))
	}
	if err == nil {
		err = c.p.Close(ctx, "vol_f")
	}
	if err == nil {
		err = c.p.Delete(ctx, "vol_f")
	}
	return err
}

func (c *chainLife) check(ctx context.Context) error { return c.compare(ctx, "vol_a@1", c.model) }

func (c *chainLife) compare(ctx context.Context, name string, want []byte) error {
	conn, err := nbd.Dial(ctx, nbd.ClientConfig{Network: "unix", Address: filepath.Join(c.p.cfg.RunDir, nbdSocket), Export: name})
	if err != nil {
		return err
	}
	defer conn.Close()
	got := make([]byte, len(want))
	for off := int64(0); off < int64(len(got)); off += mib {
		if err := conn.ReadAt(ctx, got[off:min(off+mib, int64(len(got)))], off); err != nil {
			return err
		}
	}
	if !bytes.Equal(got, want) {
		c.p.tb.Fatalf("%s holds something else", name)
	}
	return nil
}

// alone waits until the frozen layers are taken in.
func (c *chainLife) alone(ctx context.Context) error {
	return await(ctx, func() (bool, error) {
		all, err := c.p.Layers(ctx)
		return len(all) == 1, err
	})
}

// empty waits until everything is wiped.
func (c *chainLife) empty(ctx context.Context) error {
	return await(ctx, func() (bool, error) {
		if _, err := c.p.Layers(ctx); err != nil {
			return false, err
		}
		entries, err := os.ReadDir(filepath.Join(c.p.cfg.Dir, "trash"))
		return len(entries) == 0, err
	})
}

// await asks until it is so.
func await(ctx context.Context, ask func() (bool, error)) error {
	for {
		if yes, err := ask(); yes || err != nil {
			return err
		}
		if err := waitFor(ctx, nil, time.Millisecond); err != nil {
			return err
		}
	}
}

// Wherever the process is killed in the life of a chain, with and without the host, the same orders again lead to the same end.
func TestChainsSurviveACrashAtAnyPoint(t *testing.T) {
	for _, point := range chainPoints {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			walkChain(t, point, false)
			if strings.HasSuffix(point, ".ready") || strings.HasSuffix(point, ".committed") {
				walkChain(t, point, true)
			}
		})
	}
}

func walkChain(t *testing.T, point string, host bool) {
	t.Helper()
	p := newProcessHost(t, prepareHost(t, newCA(t), "h1"))
	noErr(t, fault.Arm(p.faults, point, "process"))
	p.start()
	life := &chainLife{p: p}
	for try := 0; ; try++ {
		err := life.run(t)
		if err == nil {
			break
		}
		if try == 3 {
			t.Fatalf("still failing: %v", err)
		}
		t.Logf("killed: %v", err)
		p.kill()
		if host {
			p.powerCut()
		}
		p.start()
	}
	if _, err := os.Stat(filepath.Join(p.faults, point)); err == nil {
		t.Error("the point was not reached")
	}
	if all := must[[]drover.LayerStatus](t)(p.Layers(t.Context())); len(all) != 0 {
		t.Errorf("layers are left: %+v", all)
	}
	p.tidy()
	p.kill()
}
