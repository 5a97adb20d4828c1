package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/nbd"
)

// The layers of the cipher bench: one encrypted, one not, on one storage daemon, with the same content.
const (
	cipherSize   = drover.GiB
	cipherTime   = 2 * time.Second
	cipherLayer  = "vol_cipher"
	plainLayer   = "vol_plain"
	smallRequest = 4 << 10
	largeRequest = 1 << 20
)

// measureCipher reads and writes an encrypted layer and one that is not, over NBD on a unix socket, in turn, and fills clones of both from another
// storage daemon.
func measureCipher(ctx context.Context, s setup) (results []result, err error) {
	source, err := startDaemon(ctx, s, "a")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, source.stop()) }()
	raw := filepath.Join(s.dir, "raw")
	if err := writeRandom(raw, cipherSize, cipherSize/2); err != nil {
		return nil, err
	}
	cipher := drover.NewCipher()
	for id, c := range map[drover.LayerID]*drover.Cipher{cipherLayer: cipher, plainLayer: nil} {
		if err := source.filled(ctx, id, c, raw); err != nil {
			return nil, err
		}
	}
	if results, err = measureCipherHydration(ctx, s, source); err != nil {
		return nil, err
	}
	for _, load := range []struct {
		name  string
		depth int
		write bool
		bytes int64
	}{
		{"read4k.depth1", 1, false, smallRequest}, {"read4k.depth32", 32, false, smallRequest}, {"write4k.depth1", 1, true, smallRequest},
		{"write4k.depth32", 32, true, smallRequest}, {"read1m", 4, false, largeRequest}, {"write1m", 4, true, largeRequest},
	} {
		var encrypted, plain []float64
		for run := range s.runs {
			e, err := source.load(ctx, cipherLayer, load.depth, load.bytes, load.write)
			if err != nil {
				return nil, err
			}
			p, err := source.load(ctx, plainLayer, load.depth, load.bytes, load.write)
			if err != nil {
				return nil, err
			}
			encrypted, plain = append(encrypted, e), append(plain, p)
			fmt.Fprintf(s.log, "run %d: %s %.0f MiB/s encrypted, %.0f not\n", run+1, load.name, e, p)
		}
		results = append(results, compare("cipher."+load.name, "MiB/s", "higher", "the same, not encrypted", encrypted, plain))
	}
	return results, nil
}

// filled makes a layer with the content of the raw file, open at epoch 1.
func (d *daemon) filled(ctx context.Context, id drover.LayerID, c *drover.Cipher, raw string) error {
	if _, err := d.CreateLayer(ctx, drover.LayerSpec{ID: id, Disk: drover.DiskID(id), Size: cipherSize, Cipher: c}); err != nil {
		return err
	}
	if c != nil {
		secret := make([]byte, drover.CipherKeySize)
		rand.Read(secret) // never fails: crypto/rand aborts the process instead
		if err := d.SetKey(ctx, c.Key, secret); err != nil {
			return err
		}
	}
	at, err := d.Open(ctx, id, 1)
	if err != nil {
		return err
	}
	uri := "nbd+unix:///" + at.Export + "?socket=" + at.Socket
	if out, err := exec.CommandContext(ctx, "nbdcopy", "--connections=1", "--flush", "--destination-is-zero", raw, uri).CombinedOutput(); err != nil {
		return fmt.Errorf("nbdcopy to the layer: %w: %s", err, out)
	}
	return nil
}

// load makes requests, so many at a time, for a while, and returns the MiB per second. Small ones are at random, large ones in order.
func (d *daemon) load(ctx context.Context, id drover.LayerID, depth int, bytes int64, write bool) (float64, error) {
	conn, err := nbd.Dial(ctx, nbd.ClientConfig{Network: "unix", Address: d.socket, Export: string(id) + "@1"})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	done := make([]int64, depth)
	group, gctx := errgroup.WithContext(ctx)
	for worker := range depth {
		group.Go(func() error {
			p, blocks := make([]byte, bytes), int64(cipherSize)/bytes
			rand.Read(p)
			for i := int64(worker); time.Since(began) < cipherTime; i += int64(depth) {
				off := i % blocks * bytes
				if bytes == smallRequest {
					off = mrand.Int64N(blocks) * bytes
				}
				err := error(nil)
				if write {
					err = conn.WriteAt(gctx, p, off, false)
				} else {
					err = conn.ReadAt(gctx, p, off)
				}
				if err != nil {
					return err
				}
				done[worker] += bytes
			}
			return nil
		})
	}
	err = group.Wait()
	took, total := time.Since(began), int64(0)
	for _, n := range done {
		total += n
	}
	return mibPerSecond(drover.Bytes(total), took), errors.Join(err, conn.Flush(ctx), conn.Close())
}

// measureCipherHydration fills clones of both layers.
func measureCipherHydration(ctx context.Context, s setup, source *daemon) (results []result, err error) {
	target, err := startDaemon(ctx, s, "b")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, target.stop()) }()
	exports := map[drover.LayerID]*drover.Export{}
	for _, id := range []drover.LayerID{cipherLayer, plainLayer} {
		status, err := source.Freeze(ctx, id)
		if err != nil {
			return nil, err
		}
		if err := source.Export(ctx, id, "b"); err != nil {
			return nil, err
		}
		exports[id] = &drover.Export{Disk: status.Disk, Layer: id, Size: status.Size, Host: "a", Address: source.address, Name: string(id),
			Allocated: status.Allocated, Cipher: status.Cipher}
	}
	rates := map[drover.LayerID][]float64{}
	for run := range s.runs {
		order := []drover.LayerID{cipherLayer, plainLayer}
		if run%2 == 1 {
			slices.Reverse(order)
		}
		for _, id := range order {
			_, took, err := target.hydrate(ctx, drover.LayerID(fmt.Sprintf("%s.%d", id, run)), exports[id])
			if err != nil {
				return nil, err
			}
			rates[id] = append(rates[id], mibPerSecond(exports[id].Allocated, took))
			fmt.Fprintf(s.log, "run %d: hydration of %s %.2f s\n", run+1, id, took.Seconds())
		}
	}
	for id := range exports { // back to work
		if err := errors.Join(source.Unexport(ctx, id, "b"), source.Thaw(ctx, id)); err != nil {
			return nil, err
		}
		if _, err := source.Open(ctx, id, 1); err != nil {
			return nil, err
		}
	}
	return []result{compare("cipher.hydrate", "MiB/s", "higher", "the same, not encrypted", rates[cipherLayer], rates[plainLayer])}, nil
}
