package volume

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/internal/fleetca"
	"drover/nbd"
)

// newEncrypted makes a host with an encrypted layer vol_a that is open at epoch 1.
func newEncrypted(t *testing.T, size drover.Bytes) (*testHost, *nbd.Client) {
	h := newHost(t, newCA(t), "h1")
	h.cipher = drover.NewCipher()
	h.create("vol_a", size)
	return h, h.open("vol_a", 1)
}

// dialAs reads an export as another host does.
func (h *testHost) dialAs(peer *testHost, name string) *nbd.Client {
	h.tb.Helper()
	cfg := must[*tls.Config](h.tb)(fleetca.ClientConfig(peer.cfg.TLSDir, h.id))
	c := must[*nbd.Client](h.tb)(nbd.Dial(h.tb.Context(), nbd.ClientConfig{Network: "tcp", Address: h.cfg.Listen, Export: name, TLS: cfg,
		MetaContexts: []string{nbd.ContextAllocation, nbd.ContextPresent}}))
	h.tb.Cleanup(func() { c.Close() })
	return c
}

// debugLog writes everything there is to be logged to a buffer.
func debugLog(to io.Writer, mu *sync.Mutex) *slog.Logger {
	return slog.New(slog.NewTextHandler(lockedWriter{to, mu}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type lockedWriter struct {
	to io.Writer
	mu *sync.Mutex
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}

// filesWith reports which files under the directory contain the text.
func filesWith(tb testing.TB, dir string, text []byte) (found []string) {
	tb.Helper()
	noErr(tb, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, text) {
			found = append(found, path)
		}
		return err
	}))
	return found
}

// What a guest writes is nowhere to be found but on its own connection; nor is the key outside of its own file and the process.
func TestPlaintextIsNowhere(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), prepareHost(t, ca, "h2")
	var log bytes.Buffer
	var logMu sync.Mutex
	h2.cfg.Log = debugLog(&log, &logMu)
	h2.start()
	t.Cleanup(h2.halt)
	cipher := drover.NewCipher()
	h1.cipher, h2.cipher = cipher, cipher
	marker := []byte("the quick brown fox jumps over the lazy dog's secret 0123456789")
	h1.create("vol_a", 4*drover.MiB)
	c := h1.open("vol_a", 1)
	for _, off := range []int64{0, 1000, 4096*7 + 512, 3*mib - 20} {
		noErr(t, c.WriteAt(t.Context(), marker, off, true))
	}
	e := h1.export("vol_a", "h2")
	wire := make([]byte, 4*mib)
	noErr(t, h1.dialAs(h2, "vol_a").ReadAt(t.Context(), wire, 0))
	if bytes.Contains(wire, marker) || isZero(wire[:512]) {
		t.Error("the export shows what the guest wrote")
	}
	h2.clone("vol_a.m", e, "")
	c = h2.open("vol_a.m", 2)
	noErr(t, h2.Hydrate(t.Context(), "vol_a.m", 0))
	h2.hydrated("vol_a.m")
	got := make([]byte, len(marker))
	noErr(t, c.ReadAt(t.Context(), got, 3*mib-20))
	if !bytes.Equal(got, marker) {
		t.Fatalf("the guest reads %q", got)
	}
	for _, h := range []*testHost{h1, h2} {
		if found := filesWith(t, h.cfg.Dir, marker); len(found) > 0 {
			t.Errorf("the marker is in %v", found)
		}
		if found := filesWith(t, h.cfg.Dir, secretOf(cipher.Key)[:16]); len(found) > 0 {
			t.Errorf("the key is in %v", found)
		}
	}
	logMu.Lock()
	defer logMu.Unlock()
	for _, secret := range [][]byte{marker, secretOf(cipher.Key)[:16], []byte(fmt.Sprintf("%x", secretOf(cipher.Key)[:8]))} {
		if bytes.Contains(log.Bytes(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	if !strings.Contains(log.String(), string(cipher.Key)) {
		t.Error("the log does not tell that a key was taken in")
	}
}

// Whoever writes parts of a sector at the same time keeps what the others wrote.
func TestPartsOfASectorAreWrittenAtTheSameTime(t *testing.T) {
	_, c := newEncrypted(t, drover.MiB)
	model := make([]byte, 16*cipherSector)
	const part = 128
	var group errgroup.Group
	for i := range len(model) / part {
		p := pattern(uint64(i), part)
		copy(model[i*part:], p)
		group.Go(func() error { return c.WriteAt(t.Context(), p, int64(i*part), false) })
	}
	whole := pattern(99, 16*cipherSector)
	group.Go(func() error { return c.WriteAt(t.Context(), whole, int64(len(model)), false) })
	noErr(t, group.Wait())
	got := make([]byte, len(model)+len(whole))
	noErr(t, c.ReadAt(t.Context(), got, 0))
	if !bytes.Equal(got, append(model, whole...)) {
		t.Error("a write took another one back")
	}
}

func TestWritesLeaveTheCallersBufferAlone(t *testing.T) {
	key := testKey(t)
	s := newSimLayer(64, nil, nil)
	noErr(t, s.open(nil))
	v := plain{content: s.content, key: key, edges: new(sync.RWMutex)}
	for _, n := range []int64{512, 700, 4096, 100000} {
		p := pattern(uint64(n), n)
		noErr(t, v.WriteAt(t.Context(), p, 512, false))
		if !bytes.Equal(p, pattern(uint64(n), n)) {
			t.Errorf("a write of %d bytes changed them", n)
		}
	}
}

// A daemon that is killed while guests write finds its keys again: every block holds what was acknowledged last, or what was on its way.
func TestKilledDaemonFindsItsKeys(t *testing.T) {
	const blocks, guests = 256, 4
	p := newProcessHost(t, prepareHost(t, newCA(t), "h1"))
	p.cipher = drover.NewCipher()
	p.start()
	p.create("vol_a", blocks*blockSize)
	c := p.open("vol_a", 1)
	var written, begun [blocks]uint64 // the seeds of each block's content; 0 for nothing
	for round := range 3 {
		var group errgroup.Group
		var enough sync.WaitGroup
		enough.Add(guests)
		for g := range guests {
			r := rand.New(rand.NewPCG(uint64(round), uint64(g)))
			group.Go(func() error {
				done := sync.OnceFunc(enough.Done)
				defer done()
				for i := 0; ; i++ {
					block := r.IntN(blocks/guests)*guests + g
					begun[block] = 1 + r.Uint64()>>1
					if c.WriteAt(t.Context(), pattern(begun[block], blockSize), int64(block)*blockSize, false) != nil {
						return nil // it was killed
					}
					written[block] = begun[block]
					if i == 50 {
						done()
					}
				}
			})
		}
		enough.Wait()
		p.kill()
		noErr(t, group.Wait())
		p.start()
		c = p.dial("vol_a@1") // nobody hands the key over again
		got := make([]byte, blocks*blockSize)
		noErr(t, c.ReadAt(t.Context(), got, 0))
		for block := range blocks {
			is := got[block*blockSize : (block+1)*blockSize]
			switch {
			case written[block] == 0 && isZero(is), written[block] != 0 && bytes.Equal(is, pattern(written[block], blockSize)):
			case begun[block] != 0 && bytes.Equal(is, pattern(begun[block], blockSize)):
				written[block] = begun[block]
			default:
				t.Fatalf("round %d: block %d holds what nobody wrote last", round, block)
			}
		}
	}
}

// After a power cut nothing of an encrypted layer is shown until the key is handed over again.
func TestPowerCutTakesTheKeys(t *testing.T) {
	ca := newCA(t)
	p := newProcessHost(t, prepareHost(t, ca, "h1"))
	p.cipher = drover.NewCipher()
	p.start()
	p.create("vol_a", 2*drover.MiB)
	data := pattern(3, 100000)
	noErr(t, p.open("vol_a", 1).WriteAt(t.Context(), data, 5000, true))
	p.powerCut()
	p.start()
	for _, name := range []string{"vol_a", "vol_a@1"} {
		_, err := p.tryDial(name)
		wantCode(t, err, drover.Precondition)
	}
	_, err := p.Open(t.Context(), "vol_a", 1)
	wantCode(t, err, drover.Precondition)
	if !strings.Contains(err.Error(), string(p.cipher.Key)) || drover.AsError(err).Hint == "" {
		t.Errorf("the refusal does not name the key and what to do: %v", err)
	}
	got := make([]byte, len(data))
	noErr(t, p.open("vol_a", 1).ReadAt(t.Context(), got, 5000))
	if !bytes.Equal(got, data) {
		t.Error("what was flushed is gone")
	}
}

func TestAnotherKeyIsRefused(t *testing.T) {
	h, _ := newEncrypted(t, drover.MiB)
	other := bytes.Repeat([]byte("another "), 8)
	other[0]++
	wantCode(t, h.SetKey(t.Context(), h.cipher.Key, other), drover.Conflict)
	wantCode(t, h.SetKey(t.Context(), h.cipher.Key, other[:32]), drover.Invalid)
	wantCode(t, h.SetKey(t.Context(), "../../etc", other), drover.Invalid)
	h.halt()
	noErr(t, os.RemoveAll(h.cfg.RunDir))
	h.start()
	noErr(t, h.SetKey(t.Context(), h.cipher.Key, other)) // nothing to compare it with yet
	_, err := h.Open(t.Context(), "vol_a", 2)
	wantCode(t, err, drover.Precondition)
}

// A key is kept while a layer may be opened with it, and no longer.
func TestKeysAreForgotten(t *testing.T) {
	ctx := t.Context()
	h, _ := newEncrypted(t, drover.MiB)
	path := filepath.Join(h.cfg.RunDir, "keys", string(h.cipher.Key))
	there := func(want bool, when string) {
		t.Helper()
		st, err := os.Stat(path)
		if (err == nil) != want {
			t.Errorf("%s: %v", when, err)
		}
		if err == nil && st.Mode().Perm() != 0o600 {
			t.Errorf("the key's file has the mode %v", st.Mode())
		}
	}
	there(true, "open")
	noErr(t, h.Close(ctx, "vol_a"))
	there(true, "closed")
	must[drover.LayerStatus](t)(h.Freeze(ctx, "vol_a"))
	there(true, "frozen")
	noErr(t, h.Thaw(ctx, "vol_a")) // a move that was aborted: no control host is needed
	must[drover.Attachment](t)(h.Open(ctx, "vol_a", 1))
	must[drover.LayerStatus](t)(h.Freeze(ctx, "vol_a"))
	noErr(t, h.Fence(ctx, "vol_a", 2))
	there(false, "another host's")
	_, err := h.tryDial("vol_a")
	wantCode(t, err, drover.Precondition)
	h.create("vol_b", drover.MiB)
	h.open("vol_b", 1)
	there(true, "open again")
	noErr(t, h.Close(ctx, "vol_b"))
	noErr(t, h.Delete(ctx, "vol_b"))
	there(false, "deleted")
}

// Hydration and exports need no key.
func TestCiphertextTravelsWithoutAKey(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	h1.cipher = drover.NewCipher()
	h1.create("vol_a", 4*drover.MiB)
	data := pattern(5, mib)
	noErr(t, h1.open("vol_a", 1).WriteAt(t.Context(), data, mib, false))
	e := h1.export("vol_a", "h2")
	h2.clone("vol_a.m", e, "")
	noErr(t, h2.Hydrate(t.Context(), "vol_a.m", 0))
	if s := h2.hydrated("vol_a.m"); !s.Cipher.Equal(h1.cipher) || s.Hydration.Copied != drover.MiB {
		t.Errorf("status: %+v, %+v", s, s.Hydration)
	}
	_, err := h2.Open(t.Context(), "vol_a.m", 2)
	wantCode(t, err, drover.Precondition)
	h2.cipher = h1.cipher
	got := make([]byte, len(data))
	noErr(t, h2.open("vol_a.m", 2).ReadAt(t.Context(), got, mib))
	if !bytes.Equal(got, data) {
		t.Error("the clone holds something else")
	}
}

func TestLayersOfAnotherCipherAreRefused(t *testing.T) {
	ca := newCA(t)
	h1 := newHost(t, ca, "h1")
	h1.cipher = drover.NewCipher()
	h1.create("vol_a", drover.MiB)
	e := h1.export("vol_a", "h2")
	raw := filepath.Join(filepath.Dir(h1.cfg.Dir), "raw")
	noErr(t, os.WriteFile(raw, make([]byte, mib), 0o600))
	must[drover.LayerStatus](t)(h1.ImportImage(t.Context(), "img_a", raw))
	other := drover.NewCipher()
	old, odd := *h1.cipher, *h1.cipher
	old.Algorithm, odd.SectorSize = "aes-128-cbc", 4096
	for name, spec := range map[string]drover.LayerSpec{
		"no cipher over an encrypted parent": {ID: "vol_a.m", Disk: "vol_a", Size: drover.MiB, Parent: e},
		"another key than the parent":        {ID: "vol_a.m", Disk: "vol_a", Size: drover.MiB, Parent: e, Cipher: other},
		"over an image":                      {ID: "vol_b", Disk: "vol_b", Size: drover.MiB, Base: "img_a", Cipher: other},
		"unknown algorithm":                  {ID: "vol_b", Disk: "vol_b", Size: drover.MiB, Cipher: &old},
		"unknown sector size":                {ID: "vol_b", Disk: "vol_b", Size: drover.MiB, Cipher: &odd},
	} {
		_, err := h1.CreateLayer(t.Context(), spec)
		if !drover.Is(err, drover.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := h1.CreateLayer(t.Context(), drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: drover.MiB, Cipher: other})
	wantCode(t, err, drover.Exists)
}

// Tools of others see an encrypted layer as any other, with requests of any size.
func TestToolsOfOthersUseEncryptedLayers(t *testing.T) {
	h, c := newEncrypted(t, 8*drover.MiB)
	noErr(t, c.Close())
	// What nobody could open is not listed: a tool that lists exports asks for each, and fails at the first that is refused.
	locked := &drover.Cipher{Algorithm: h.cipher.Algorithm, SectorSize: h.cipher.SectorSize, Key: "key_00000000000000ff"}
	must[drover.LayerStatus](t)(h.CreateLayer(t.Context(), drover.LayerSpec{ID: "vol_locked", Disk: "vol_locked", Size: drover.MiB, Cipher: locked}))
	if out, err := tool(t, "nbdinfo", "--list", h.uri("")); err != nil || !strings.Contains(out, `export="vol_a@1"`) || strings.Contains(out, "vol_locked") {
		t.Errorf("%v\n%s", err, out)
	}
	raw := filepath.Join(t.TempDir(), "raw")
	noErr(t, os.WriteFile(raw, pattern(1, 8*mib), 0o600))
	for _, cmd := range [][]string{
		{"nbdcopy", raw, h.uri("vol_a@1")},
		{"qemu-io", "-f", "raw", h.uri("vol_a@1"), "-c", "write -P 7 1000 3", "-c", "write -P 8 4095 2", "-c", "discard 10000 70000",
			"-c", "write -z 200001 511", "-c", "read -P 7 1000 3", "-c", "read -P 0 10000 70000", "-c", "flush"},
		{"qemu-io", "-f", "raw", raw, "-c", "write -P 7 1000 3", "-c", "write -P 8 4095 2", "-c", "write -z 10000 70000", "-c", "write -z 200001 511"},
		{"qemu-img", "compare", "-f", "raw", "-F", "raw", raw, h.uri("vol_a")},
	} {
		if out, err := tool(t, cmd[0], cmd[1:]...); err != nil || strings.Contains(out, "failed") {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
}
