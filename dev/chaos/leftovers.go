package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"drover"
	"drover/dev"
)

// findLeftovers waits until every host has exactly what its machines need. What else there is when the bound is over is a leftover. Hosts look for
// what they need no more once a minute, and when their agent starts: it is started again, so that this is soon.
func (r *run) findLeftovers(ctx context.Context) error {
	sleep(ctx, grace)
	for _, id := range r.workers {
		if _, err := r.within(ctx, boundCommand, "dev", "kill", string(id), "--service", "worker"); err != nil {
			return err
		}
	}
	r.comesTo(ctx, "nothing is left over", r.leftovers)
	return nil
}

// leftovers lists what is there and should not be, and what is not there and should be.
func (r *run) leftovers(ctx context.Context) []string {
	var status dev.Status
	if err := r.ask(ctx, &status, "dev", "status"); err != nil {
		return []string{err.Error()}
	}
	hosts, err := r.hosts(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	here := map[drover.HostID][]*machine{}
	for _, m := range r.machines {
		if _, err := r.show(ctx, m); err != nil {
			return []string{err.Error()}
		}
		here[m.lastHost()] = append(here[m.lastHost()], m)
	}
	var out []string
	for _, h := range status.Hosts {
		if !slices.Contains(r.workers, h.ID) {
			continue
		}
		l := look{host: h, machines: here[h.ID], data: filepath.Join(r.files, "hosts", string(h.ID), "data")}
		for _, info := range hosts {
			if info.ID == h.ID {
				l.info = info
			}
		}
		if err := r.ask(ctx, &l.layers, "host", "layers", string(h.ID)); err != nil {
			out = append(out, err.Error())
			continue
		}
		for _, what := range l.all() {
			out = append(out, fmt.Sprintf("host %s %s", h.ID, what))
		}
	}
	return append(out, r.runningMigrations(ctx)...)
}

// look is one host, and what should be on it.
type look struct {
	host     dev.HostStatus
	info     drover.HostInfo
	machines []*machine
	layers   []drover.LayerStatus
	data     string
}

func (l look) all() []string {
	return slices.Concat(l.strayLayers(), l.promises(), l.files(), l.devices(), l.vms())
}

// strayLayers compares the pool with the disks of the machines: one layer each, which is open, and exported to nobody.
func (l look) strayLayers() []string {
	want := map[drover.DiskID]int{}
	for _, m := range l.machines {
		want[drover.RootDisk(m.id)], want[m.volume.Disk()] = 1, 1
	}
	var out []string
	for _, layer := range l.layers {
		if layer.State == drover.LayerImage {
			continue
		}
		if want[layer.Disk] == 0 {
			out = append(out, fmt.Sprintf("has the layer %s of disk %s, which is %s", layer.ID, layer.Disk, layer.State))
			continue
		}
		want[layer.Disk]--
		if len(layer.Exports) > 0 {
			out = append(out, fmt.Sprintf("exports the layer %s to %v", layer.ID, layer.Exports))
		}
		if layer.Writer == 0 {
			out = append(out, fmt.Sprintf("has not opened the layer %s", layer.ID))
		}
	}
	for disk, n := range want {
		if n > 0 {
			out = append(out, fmt.Sprintf("has no layer of disk %s", disk))
		}
	}
	slices.Sort(out)
	return out
}

// promises compares what the host says it has given away with what its machines take, and its conditions with none.
func (l look) promises() []string {
	var out []string
	if want := drover.Bytes(len(l.machines)*machineMB) * drover.MiB; l.info.MemoryUsed != want {
		out = append(out, fmt.Sprintf("has promised %d MiB of memory; its machines take %d", l.info.MemoryUsed/drover.MiB, want/drover.MiB))
	}
	if l.info.Machines != len(l.machines) {
		out = append(out, fmt.Sprintf("counts %d machines; there are %d", l.info.Machines, len(l.machines)))
	}
	for _, c := range l.info.Conditions {
		out = append(out, fmt.Sprintf("has the condition %s: %s", c.Code, c.Text))
	}
	return out
}

// files compares directories: what is in them is named after machines, or counted.
func (l look) files() []string {
	var ids []string
	for _, m := range l.machines {
		ids = append(ids, string(m.id))
	}
	var out []string
	for _, dir := range []string{filepath.Join(l.data, "machines"), filepath.Join(l.host.RunDir, "machines"), filepath.Join(l.host.RunDir, "vm")} {
		for _, name := range names(dir) {
			if !slices.Contains(ids, name) {
				out = append(out, fmt.Sprintf("has files of machine %s in %s", name, dir))
			}
		}
	}
	for _, dir := range []string{"new", "trash"} {
		for _, name := range names(filepath.Join(l.data, "storage", dir)) {
			out = append(out, fmt.Sprintf("has %s in the pool's directory %s", name, dir))
		}
	}
	for dir, most := range map[string]int{"vhost": 2 * len(ids), "keys": len(ids), "maps": len(l.layers)} {
		// The files of one map share the part of the name before the first dot.
		stems := map[string]bool{}
		for _, name := range names(filepath.Join(l.host.RunDir, dir)) {
			stem, _, _ := strings.Cut(name, ".")
			stems[stem] = true
		}
		if len(stems) > most {
			out = append(out, fmt.Sprintf("has %d files in %s, and needs %d", len(stems), filepath.Join(l.host.RunDir, dir), most))
		}
	}
	return out
}

// names lists a directory; one that is not there has nothing in it.
func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
