package test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"drover"
)

// try runs a command in a machine and tells whether it ended well.
func try(t *testing.T, id drover.MachineID, command string) (string, bool) {
	t.Helper()
	out, err := fleet.cli.Command(t.Context(), "machine", "exec", string(id), "--", "sh", "-c", command).Output()
	return string(out), err == nil
}

// Machines of one network find each other by name on whatever host they are, and reach nothing else; that a machine moves is noticed by nobody.
func TestMachinesHaveAPrivateNetwork(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	stranger := app + "-other"
	run(t, "app", "create", stranger, "--org", "others")
	t.Cleanup(func() { removeApp(t, stranger) })
	a := shell(t, app, "exec sleep 100000", "--host", "h1")
	b := shell(t, app, "exec sleep 100000", "--host", "h2")
	c := shell(t, stranger, "exec sleep 100000", "--host", "h2")

	lookUp := func(name string) string {
		out, _ := try(t, a.ID, "nslookup -type=aaaa "+name+" fdaa::3")
		return out
	}
	eventually(t, boundBoot, "names of both machines", func() bool {
		out := lookUp(app + ".internal")
		return strings.Contains(out, a.PrivateIP) && strings.Contains(out, b.PrivateIP)
	})
	if out := lookUp(string(b.ID) + ".vm." + app + ".internal"); !strings.Contains(out, b.PrivateIP) {
		t.Errorf("machine b is not found by its ID: %s", out)
	}
	if out := lookUp(stranger + ".internal"); strings.Contains(out, c.PrivateIP) {
		t.Errorf("the name of another network is told: %s", out)
	}
	if out := inside(t, a.ID, "cat", "/etc/resolv.conf"); !strings.Contains(out, "fdaa::3") {
		t.Errorf("the machine asks %s", out)
	}

	ping := func(to string, more string) bool {
		_, ok := try(t, a.ID, "ping6 -c 1 -W 2 "+more+" "+to)
		return ok
	}
	// 1332 bytes and the headers are the largest packet; one byte more has to be cut.
	for _, size := range []int{56, 1332, 1333, 6000} {
		eventually(t, boundBoot, fmt.Sprintf("a ping of %d bytes", size), func() bool { return ping(b.PrivateIP, fmt.Sprintf("-s %d", size)) })
	}
	for what, to := range map[string]string{"another network": c.PrivateIP, "a host's own network": "fd98:d0e5::1", "another host": "fd98:d0e5::2", "a host's mesh address": "fdaa::1:0:0:1",
		"a host's address for a pair of keys": "fdaa::1:0:0:10"} {
		if ping(to, "") {
			t.Errorf("%s is reached at %s", what, to)
		}
	}
	// An address of nobody, and one of the other network.
	network, _, _ := strings.Cut(b.PrivateIP, "::2")
	for _, forged := range []string{network + ":7::2", "fdaa:0:77:0:1::2"} {
		if out, ok := try(t, a.ID, "ip -6 addr add "+forged+"/128 dev eth0 nodad 2>&1 && ping6 -c 1 -W 2 -I "+forged+" "+b.PrivateIP); ok {
			t.Errorf("a packet from %s was answered: %s", forged, out)
		}
		try(t, a.ID, "ip -6 addr del "+forged+"/128 dev eth0")
	}

	// Somebody's own computer comes in by h1, and finds b by its name.
	ann := newPerson(t, "h3", run(t, "wireguard", "create", "ann-"+app, "--host", "h1"))
	annPings := func(to string) bool {
		_, ok := ann.try("ping -6 -c 1 -W 2 " + to + " || busybox ping6 -c 1 -W 2 " + to)
		return ok
	}
	annFinds := func() bool {
		out, _ := ann.try("busybox nslookup -type=aaaa " + string(b.ID) + ".vm." + app + ".internal fdaa::3")
		return strings.Contains(out, b.PrivateIP) && annPings(b.PrivateIP)
	}
	eventually(t, boundBoot, "a person who finds a machine", annFinds)
	if out, _ := ann.try("busybox nslookup -type=aaaa " + stranger + ".internal fdaa::3"); strings.Contains(out, c.PrivateIP) {
		t.Errorf("a person is told the name of another network: %s", out)
	}
	for what, to := range map[string]string{"another network": c.PrivateIP, "another host": "fdaa::2:0:0:1", "their host": "fdaa::1:0:0:1"} {
		if annPings(to) {
			t.Errorf("a person reaches %s at %s", what, to)
		}
	}
	// Their host gets another key: nobody notices.
	pings := make(chan string, 1)
	go func() {
		out, _ := try(t, a.ID, "ping6 -q -c 120 -i 0.1 -W 20 "+b.PrivateIP)
		pings <- out
	}()
	before := ask[drover.MeshKey](t, "host", "rotate-key", "h1")
	if before.Number == 0 || before.Rotation.Running() || before.PublicKey == before.PeopleKey {
		t.Errorf("the key is %+v", before)
	}
	if out := <-pings; !strings.Contains(out, " 0% packet loss") {
		t.Errorf("while the host got another key: %s", out)
	}
	if !annPings(b.PrivateIP) {
		t.Error("a person does not come in by a host that has got another key")
	}
	// Machines of the app let in their own only: ann is not of it.
	run(t, "network", "policy", "set", "own", "--app", app, "--ingress", "any@app:"+app)
	eventually(t, boundBoot, "the policy to hold", func() bool { return !annPings(b.PrivateIP) && ping(b.PrivateIP, "") })

	// h1 hears no more of where machines are: what it sends to where b was is passed on, and it is named until it hears again.
	run(t, "dev", "fault", "h1", "network.feed", "--kind", "hold")
	release := func() {
		t.Helper()
		if err := fleet.cli.Run(context.WithoutCancel(t.Context()), os.Stderr, "dev", "fault", "h1", "network.feed", "--release"); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(release)
	staleOnH1 := func() bool {
		return slices.ContainsFunc(ask[drover.HostInfo](t, "host", "show", "h1").Conditions, func(c drover.Condition) bool { return c.Code == drover.MeshStale })
	}
	moved := ask[drover.Migration](t, "machine", "move", string(b.ID), "--to", "h3", "--live", "--switch", "early")
	if moved.Outcome != drover.Succeeded {
		t.Fatalf("migration %+v", moved)
	}
	if !ping(b.PrivateIP, "-s 1332") {
		t.Error("the machine that moved is not reached")
	}
	eventually(t, boundMove, "h1 to be named for what it believes", staleOnH1)
	release()
	eventually(t, boundMove, "h1 to have caught up", func() bool { return !staleOnH1() })
	if annPings(b.PrivateIP) {
		t.Error("the policy has not moved along")
	}
	run(t, "network", "policy", "delete", "own", "--app", app, "--yes")
	eventually(t, boundBoot, "a person who finds the machine where it is now", annFinds)
	if p := ask[drover.WireGuardView](t, "wireguard", "show", "ann-"+app); p.HandshakeAt.IsZero() || p.Received == 0 || p.Sent == 0 {
		t.Errorf("of the person is known %+v", p)
	}
	run(t, "wireguard", "move", "ann-"+app, "--host", "h2")
	eventually(t, boundBoot, "h1 to shut the person out", func() bool { return !annPings(b.PrivateIP) })
	run(t, "wireguard", "remove", "ann-"+app, "--yes")
	// What carries the packets may end at any time, and begins again by itself with what it knew.
	run(t, "dev", "kill", "h1", "--service", "mesh")
	eventually(t, boundBoot, "a ping after the mesh was killed", func() bool { return ping(b.PrivateIP, "") })
	// Other tests move machines at the same time, and cut hosts off: only what is believed of these counts.
	eventually(t, boundMove, "the same view of all hosts", func() bool {
		var check drover.NetworkCheck
		if err := fleet.cli.Ask(t.Context(), &check, "network", "check"); err != nil && len(check.Hosts) == 0 {
			return false
		}
		for _, h := range check.Hosts {
			for _, s := range h.Stale {
				if s.Machine == a.ID || s.Machine == b.ID {
					return false
				}
			}
			if h.Problem != "" || h.Mesh.Mesh == nil {
				return false
			}
		}
		return len(check.Hosts) == 3
	})
}
