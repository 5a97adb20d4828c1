package host

import (
	"testing"

	"drover"
)

func TestWhatIsAgainstALiveMove(t *testing.T) {
	a := &Agent{cfg: Config{ID: "a", GuestCPU: "tcg-max", Platform: "QEMU 7.2.22 pc-i440fx-7.2"}}
	spec := machineSpec("m1")
	same := drover.HostInfo{ID: "b", CPU: "tcg-max", Platform: "QEMU 7.2.22 pc-i440fx-7.2"}
	over := spec
	over.Config.Guest.DiskTransport = drover.TransportNBD
	for name, c := range map[string]struct {
		spec drover.Machine
		peer drover.HostInfo
		want string
	}{
		"nothing":          {spec, same, ""},
		"nbd":              {over, same, "transport"},
		"another cpu":      {spec, drover.HostInfo{ID: "b", CPU: "x", Platform: same.Platform}, "cpu"},
		"another version":  {spec, drover.HostInfo{ID: "b", CPU: same.CPU, Platform: "QEMU 9.2"}, "vmm"},
		"a host of before": {spec, drover.HostInfo{ID: "b", CPU: same.CPU}, "vmm"},
	} {
		bad := ""
		for _, f := range a.liveFindings(drover.MoveCheckRequest{Spec: c.spec, Peer: c.peer}) {
			if !f.LiveOnly || f.Host != "a" || f.Text == "" || (f.Hint == "") != f.OK {
				t.Errorf("%s: %+v", name, f)
			}
			if !f.OK {
				bad += f.Check
			}
		}
		if bad != c.want {
			t.Errorf("%s: against it is %q, want %q", name, bad, c.want)
		}
	}
}
