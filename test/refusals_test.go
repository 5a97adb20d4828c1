package test

import (
	"bytes"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/apiv1"
)

// refused types a command that must fail, and returns its exit code and what it said.
func refused(t *testing.T, args ...string) (int, string) {
	t.Helper()
	cmd := fleet.cli.Command(t.Context(), args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("drover %v was not refused: %v\n%s", args, err, said.String())
	}
	return exit.ExitCode(), said.String()
}

func TestRefusalsSayWhatIsWrongAndLeaveNothing(t *testing.T) {
	app := newApp(t)
	v := ask[apiv1.Volume](t, "volume", "create", "taken", "--app", app, "--host", "h1", "--size", "1GiB")
	m := shell(t, app, "exec sleep 100000", "--name", "taken", "--volume", string(v.ID)+":/data")
	image := "oci:" + fleet.shellImage
	before := rootDisks(t)
	create := func(more ...string) []string {
		return append([]string{"machine", "create", "--app", app}, more...)
	}
	cases := []struct {
		name string
		args []string
		exit int
		says []string
	}{
		{"unknown app", []string{"machine", "create", image, "--app", "nobody"}, 3, []string{"nobody"}},
		{"unknown image", create("oci:/nowhere/at/all"), 0, []string{"/nowhere/at/all"}},
		{"image of no registry", create("127.0.0.1:1/none:latest"), 0, []string{"127.0.0.1:1"}},
		{"unknown region", create(image, "--region", "atlantis"), 2, []string{"atlantis", "ams", "fra"}},
		{"too little memory", create(image, "--memory", "4"), 2, []string{"memory_mb"}},
		{"more memory than any host has", create(image, "--memory", "9999999"), 0, []string{"memory"}},
		{"name taken", create(image, "--name", "taken"), 4, []string{"taken"}},
		{"volume taken", create(image, "--volume", string(v.ID)+":/data"), 4, []string{string(v.ID), string(m.ID)}},
		{"unknown volume", create(image, "--volume", "vol_0000000000000000:/data"), 3, []string{"vol_0000000000000000"}},
		{"relative mount path", create(image, "--volume", string(v.ID)+":data"), 2, []string{"path"}},
		{"unknown restart policy", create(image, "--restart", "perhaps"), 2, []string{"perhaps", "on-failure"}},
		{"bad volume name", []string{"volume", "create", "Not OK", "--app", app}, 2, []string{"name"}},
		{"volume larger than any disk", []string{"volume", "create", "huge", "--app", app, "--size", "90000000GiB"}, 2, []string{"size"}},
		{"attached volume", []string{"volume", "destroy", string(v.ID), "--yes"}, 5, []string{string(m.ID)}},
		{"running machine", []string{"machine", "destroy", string(m.ID), "--yes"}, 5, []string{string(m.ID), "--force"}},
		{"app that lives", []string{"app", "undelete", app}, 5, []string{app}},
		{"unknown machine", []string{"machine", "show", "00000000000000"}, 3, []string{"00000000000000"}},
		{"move to where it is", []string{"machine", "move", string(m.ID), "--to", "h1"}, 2, []string{"h1"}},
		{"move to nowhere", []string{"machine", "move", string(m.ID), "--to", "h99"}, 3, []string{"h99"}},
		{"unknown migration", []string{"migration", "show", "mig_0000000000000000"}, 3, []string{"mig_0000000000000000"}},
		{"wrong token", []string{"--token", "wrong", "app", "list"}, 8, []string{"token"}},
		{"unknown command", []string{"machine", "teleport"}, 2, []string{"teleport"}},
	}
	for _, c := range cases {
		exit, said := refused(t, c.args...)
		if c.exit != 0 && exit != c.exit {
			t.Errorf("%s: exit code %d, want %d: %s", c.name, exit, c.exit, said)
		}
		for _, word := range c.says {
			if !strings.Contains(said, word) {
				t.Errorf("%s: does not say %q: %s", c.name, word, said)
			}
		}
		if strings.Contains(said, "context deadline exceeded") {
			t.Errorf("%s: says nothing useful: %s", c.name, said)
		}
	}
	if machines := ask[[]apiv1.Machine](t, "machine", "list", "--app", app); len(machines) != 1 {
		t.Errorf("half-made machines are left: %+v", machines)
	}
	if volumes := ask[[]apiv1.Volume](t, "volume", "list", "--app", app); len(volumes) != 1 {
		t.Errorf("half-made volumes are left: %+v", volumes)
	}
	if after := rootDisks(t); !slices.Equal(after, before) {
		t.Errorf("the root disks were %v and are %v", before, after)
	}
}

// TestADestroyedAppIsKeptAndComesBack is the mistake of somebody who meant another app.
func TestADestroyedAppIsKeptAndComesBack(t *testing.T) {
	app := newApp(t)
	v := ask[apiv1.Volume](t, "volume", "create", "kept", "--app", app, "--host", "h1", "--size", "1GiB")
	m := shell(t, app, "test -e /data/mark && echo it is there; echo x > /data/mark; sync; echo it is written; exec sleep 100000", "--volume", string(v.ID)+":/data")
	says := func(what string) func() bool {
		return func() bool { return strings.Contains(run(t, "machine", "logs", string(m.ID), "--app", app), what) }
	}
	eventually(t, boundBoot, "the data", says("it is written"))
	end := ask[apiv1.DestroyedApp](t, "app", "destroy", app, "--yes")
	if end.Gone || !end.WipeAt.After(time.Now()) {
		t.Errorf("%+v", end)
	}
	if exit, said := refused(t, "machine", "show", string(m.ID), "--app", app); exit != 3 || !strings.Contains(said, "drover app undelete "+app) {
		t.Errorf("exit code %d: %s", exit, said)
	}
	if exit, said := refused(t, "app", "create", app); exit != 4 || !strings.Contains(said, "drover app undelete "+app) {
		t.Errorf("exit code %d: %s", exit, said)
	}
	if exit, said := refused(t, "app", "destroy", app); exit != 5 || !strings.Contains(said, "1 machine and 1 volume") {
		t.Errorf("exit code %d: %s", exit, said)
	}
	eventually(t, boundBoot, "the stop of its machine", func() bool {
		return slices.ContainsFunc(ask[[]apiv1.Machine](t, "host", "machines", "h1"), func(there apiv1.Machine) bool { return there.ID == m.ID && there.State == drover.StateStopped })
	})
	run(t, "app", "undelete", app)
	back := ask[apiv1.Machine](t, "machine", "show", string(m.ID), "--app", app)
	if back.PrivateIP != m.PrivateIP {
		t.Errorf("its address was %s and is %s", m.PrivateIP, back.PrivateIP)
	}
	eventually(t, boundBoot, "the machine that goes on with its data", says("it is there"))
}

// rootDisks lists the root disks on all hosts, also those that a source keeps for a while after a move.
func rootDisks(t *testing.T) (disks []string) {
	t.Helper()
	for _, h := range []string{"h1", "h2", "h3"} {
		for _, l := range ask[[]drover.LayerStatus](t, "host", "layers", h) {
			if strings.HasPrefix(string(l.Disk), "root_") {
				disks = append(disks, h+"/"+string(l.ID))
			}
		}
	}
	slices.Sort(disks)
	return disks
}

func TestMoveToAHostThatIsDownOrWhileItMovesIsRefused(t *testing.T) {
	app := newApp(t)
	m := shell(t, app, "exec sleep 100000", "--host", "h1")
	run(t, "dev", "kill", "h3")
	defer run(t, "dev", "start", "h3")
	eventually(t, boundBoot, "the refusal", func() bool {
		var hosts []drover.HostInfo
		if err := fleet.cli.Ask(t.Context(), &hosts, "host", "list"); err != nil {
			return false
		}
		for _, h := range hosts {
			if h.ID == "h3" {
				return h.Status == drover.HostUnreachable
			}
		}
		return false
	})
	if exit, said := refused(t, "machine", "move", string(m.ID), "--to", "h3"); exit != 7 || !strings.Contains(said, "h3") {
		t.Errorf("exit code %d: %s", exit, said)
	}
	first := ask[drover.Migration](t, "machine", "move", string(m.ID), "--to", "h2", "--detach")
	exit, said := refused(t, "machine", "move", string(m.ID), "--to", "h2")
	if exit != 4 || !strings.Contains(said, string(first.ID)) {
		t.Errorf("exit code %d: %s", exit, said)
	}
	lastMigration(t, m.ID)
}

// TestARotatedRootEndsItsTokens, those that were narrowed from them too, and no others.
func TestARotatedRootEndsItsTokens(t *testing.T) {
	t.Parallel()
	type made struct {
		Token string `json:"token"`
	}
	create := func() string {
		t.Helper()
		return ask[made](t, "token", "create", "--org", "rotated", "--name", "ci").Token
	}
	old := create()
	narrowed := strings.TrimSpace(run(t, "token", "attenuate", "--token", old, "--read-only"))
	takes := func(token string) bool {
		return fleet.cli.Command(t.Context(), "app", "list", "--token", token).Run() == nil
	}
	if !takes(old) || !takes(narrowed) {
		t.Fatal("new tokens are not taken")
	}
	run(t, "token", "rotate-root", "rotated", "--yes")
	for _, token := range []string{old, narrowed} {
		eventually(t, 10*time.Second, "the end of a token whose root was rotated", func() bool { return !takes(token) })
	}
	if !takes(create()) {
		t.Error("a token of the new root is not taken")
	}
	run(t, "app", "list")
}
