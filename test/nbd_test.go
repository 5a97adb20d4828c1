package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover"
	"drover/apiv1"
)

// onHost runs a command inside a host's namespaces and returns all it printed; ok tells its exit code.
func onHost(t *testing.T, host string, command ...string) (out string, ok bool) {
	t.Helper()
	raw, err := fleet.cli.Command(t.Context(), append([]string{"dev", "exec", host, "--"}, command...)...).Output()
	return string(raw), err == nil
}

// TestVolumesAreOrdinaryNBDExports reads a volume with tools that know nothing of Drover.
func TestVolumesAreOrdinaryNBDExports(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	w := newWriter(t, app, "h1")
	run(t, "machine", "stop", string(w.id))
	var layer drover.LayerStatus
	for _, l := range ask[[]drover.LayerStatus](t, "host", "layers", "h1") {
		if l.Disk == w.volume.Disk() {
			layer = l
		}
	}
	socket, ok := onHost(t, "h1", "sh", "-c", "echo $DROVER_RUN_DIR/nbd.sock")
	if !ok {
		t.Fatal("no run directory on h1")
	}
	uri := "nbd+unix:///" + string(layer.ID) + "?socket=" + strings.TrimSpace(socket)
	info, ok := onHost(t, "h1", "nbdinfo", uri)
	if !ok || !strings.Contains(info, "1073741824") {
		t.Fatalf("nbdinfo %s: %s", uri, info)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if out, ok := onHost(t, "h1", "nbdcopy", uri, copied); !ok {
		t.Fatalf("nbdcopy: %s", out)
	}
	if st, err := os.Stat(copied); err != nil || st.Size() != 1<<30 {
		t.Fatalf("copied %v, %v", st, err)
	}
	if out, ok := onHost(t, "h1", "qemu-img", "compare", "-f", "raw", "-F", "raw", copied, uri); !ok || !strings.Contains(out, "identical") {
		t.Errorf("qemu-img compare: %s", out)
	}
	if out, ok := onHost(t, "h1", "/sbin/e2fsck", "-fn", copied); !ok {
		t.Errorf("the file system is not clean: %s", out)
	}
	for _, bad := range []string{"nothing", string(layer.ID) + "@1"} {
		if out, ok := onHost(t, "h1", "nbdinfo", "nbd+unix:///"+bad+"?socket="+strings.TrimSpace(socket)); ok {
			t.Errorf("the export %q was given: %s", bad, out)
		}
	}
}

func TestOtherHostsMayReadOnlyWhatWasExportedToThem(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	v := ask[apiv1.Volume](t, "volume", "create", "secret", "--app", app, "--host", "h1", "--size", "1GiB")
	var address string
	for _, h := range ask[[]drover.HostInfo](t, "host", "list") {
		if h.ID == "h1" {
			address = h.StorageAddress
		}
	}
	tls := filepath.Join(fleet.cli.Dir, "hosts", "h2", "tls")
	uri := "nbds://" + address + "/" + string(v.ID) + "?tls-certificates=" + tls
	if out, ok := onHost(t, "h2", "nbdinfo", uri); ok {
		t.Errorf("h2 reads a volume of h1 that was never exported to it: %s", out)
	}
	if out, ok := onHost(t, "h2", "nbdinfo", "nbd://"+address+"/"+string(v.ID)); ok {
		t.Errorf("without a certificate: %s", out)
	}
}
