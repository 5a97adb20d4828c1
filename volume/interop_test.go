package volume

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"drover"
)

// tool runs a program of another project against the daemon. It must be installed (packages libnbd-bin and qemu-utils).
func tool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	return string(out), err
}

func (h *testHost) uri(name string) string {
	return fmt.Sprintf("nbd+unix:///%s?socket=%s", name, filepath.Join(h.cfg.RunDir, nbdSocket))
}

func (h *testHost) tlsURI(name, certificates string) string {
	host, port, err := net.SplitHostPort(h.cfg.Listen)
	if err != nil {
		h.tb.Fatal(err)
	}
	return fmt.Sprintf("nbds://%s:%s/%s?tls-certificates=%s", host, port, name, certificates)
}

func TestToolsOfOthersReadAndWriteLayers(t *testing.T) {
	ca := newCA(t)
	h1, h2, h3 := newHost(t, ca, "h1"), newHost(t, ca, "h2"), newHost(t, ca, "h3")
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	f := must[*os.File](t)(os.Create(raw))
	noErr(t, f.Truncate(32*mib))
	for off := int64(0); off < 32*mib; off += 5 * mib {
		_, err := f.WriteAt(pattern(uint64(off), mib/2), off)
		noErr(t, err)
	}
	noErr(t, f.Close())
	h1.create("vol_a", 32*drover.MiB)
	must[drover.Attachment](t)(h1.Open(t.Context(), "vol_a", 1))
	run := func(want string, name string, args ...string) {
		t.Helper()
		out, err := tool(t, name, args...)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	fails := func(name string, args ...string) {
		t.Helper()
		if out, err := tool(t, name, args...); err == nil {
			t.Fatalf("%s %v succeeded:\n%s", name, args, out)
		}
	}
	run("", "nbdcopy", "--connections=4", "--request-size=65536", raw, h1.uri("vol_a@1"))
	fails("nbdcopy", raw, h1.uri("vol_a"))
	run("identical", "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, h1.uri("vol_a"))
	run("33554432", "nbdinfo", h1.uri("vol_a"))
	run("hole,zero", "nbdinfo", "--map", h1.uri("vol_a"))
	e := h1.export("vol_a", "h2")
	fails("nbdinfo", h1.uri("vol_a@1"))
	run("33554432", "nbdinfo", h1.tlsURI("vol_a", h2.cfg.TLSDir))
	fails("nbdinfo", h1.tlsURI("vol_a", h3.cfg.TLSDir))
	fails("nbdinfo", h1.tlsURI("vol_none", h2.cfg.TLSDir))
	fails("nbdinfo", strings.Replace(h1.tlsURI("vol_a", h2.cfg.TLSDir), "nbds", "nbd", 1))
	copied := filepath.Join(dir, "copied")
	run("", "nbdcopy", h1.tlsURI("vol_a", h2.cfg.TLSDir), copied)
	run("identical", "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, copied)
	h2.clone("vol_a.m", e, "")
	must[drover.Attachment](t)(h2.Open(t.Context(), "vol_a.m", 2))
	run("hole,zero", "nbdinfo", "--map", h2.uri("vol_a.m"))
	run("identical", "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, h2.uri("vol_a.m"))
}
