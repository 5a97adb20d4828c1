package fleet

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"drover"
	"drover/natsbus"
)

// secretsOf is how a host asks for secrets.
func (w *world) secretsOf(host drover.HostID) *natsbus.HostSecrets {
	w.t.Helper()
	conn := w.connect(w.t.Context(), string(host)+"-secrets")
	w.t.Cleanup(conn.Close)
	return natsbus.NewHostSecrets(conn, host, w.tls(host, false))
}

// gets waits until a host gets an answer, and returns it.
func (w *world) gets(s *natsbus.HostSecrets, id drover.MachineID) (v drover.SecretValues, err error) {
	w.t.Helper()
	w.eventually("the host gets an answer", func() bool {
		v, err = s.Secrets(w.t.Context(), id)
		return !drover.Is(err, drover.Unavailable)
	})
	return v, err
}

// secrets makes changes from texts; "-" removes one.
func secretChanges(pairs ...string) map[string]*drover.SecretValue {
	out := map[string]*drover.SecretValue{}
	for i := 0; i < len(pairs); i += 2 {
		if out[pairs[i]] = nil; pairs[i+1] != "-" {
			v := drover.NewSecretValue(pairs[i+1])
			out[pairs[i]] = &v
		}
	}
	return out
}

func (w *world) setSecrets(n *node, pairs ...string) drover.SecretSet {
	w.t.Helper()
	set, err := n.ChangeSecrets(w.t.Context(), "shop", secretChanges(pairs...))
	if err != nil {
		w.t.Fatal(err)
	}
	return set
}

// buffer is a log that can be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// Secrets are set and removed together, with a version that grows with every change and with nothing else. Values come out when they are asked for, and
// are in no log and nowhere in what the bus keeps.
func TestSecretsAreKept(t *testing.T) {
	t.Parallel()
	var log buffer
	w, n := newWorld(t)
	n.kill()
	w.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	n = w.control("c1", nil)
	ctx := t.Context()
	if set, err := n.Secrets(ctx, "shop", 0); err != nil || set.Version != 0 || len(set.Secrets) != 0 {
		t.Fatalf("before: %+v, %v", set, err)
	}
	if set := w.setSecrets(n, "GONE", "-"); set.Version != 0 {
		t.Errorf("to remove what is not there made version %d", set.Version)
	}
	one := w.setSecrets(n, "A", "hunter2-hunter2", "B", "hunter2-hunter2")
	if one.Version == 0 || len(one.Secrets) != 2 || one.Secrets[0].Digest == one.Secrets[1].Digest || one.Secrets[0].Digest == "" {
		t.Fatalf("%+v", one)
	}
	if again := w.setSecrets(n, "A", "hunter2-hunter2", "GONE", "-"); again.Version != one.Version {
		t.Errorf("nothing changed, and version %d became %d", one.Version, again.Version)
	}
	two := w.setSecrets(n, "A", "hunter3-hunter3", "B", "-", "C", "")
	if two.Version <= one.Version || len(two.Secrets) != 2 || two.Secrets[0].Digest == one.Secrets[0].Digest ||
		!two.Secrets[0].CreatedAt.Equal(one.Secrets[0].CreatedAt) || !two.Secrets[0].UpdatedAt.After(one.Secrets[0].UpdatedAt) {
		t.Errorf("%+v after %+v", two, one)
	}
	values, err := n.SecretValues(ctx, "shop")
	if err != nil || values.Version != two.Version || len(values.Values) != 2 || values.Values["A"].Reveal() != "hunter3-hunter3" || values.Values["C"].Reveal() != "" {
		t.Errorf("%+v, %v", values, err)
	}
	for name, value := range map[string]string{"1A": "x", "DROVER_TOKEN": "x", "A B": "x", "NUL": "a\x00b", "LONG": strings.Repeat("x", drover.MaxSecretBytes+1)} {
		if _, err := n.ChangeSecrets(ctx, "shop", secretChanges(name, value)); !drover.Is(err, drover.Invalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := n.ChangeSecrets(ctx, "nowhere", secretChanges("A", "x")); !drover.Is(err, drover.NotFound) {
		t.Errorf("an app that is not there: %v", err)
	}
	if _, err := n.RotateKeys(ctx); err != nil {
		t.Fatal(err)
	}
	if after, err := n.SecretValues(ctx, "shop"); err != nil || after.Values["A"].Reveal() != "hunter3-hunter3" {
		t.Errorf("after a rotation: %v", err)
	}
	w.destroyApp(n, "shop")
	w.checkEmpty(n)
	if _, err := n.CreateApp(ctx, drover.App{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	if set, err := n.Secrets(ctx, "shop", 0); err != nil || len(set.Secrets) != 0 {
		t.Errorf("the next app of the name has %+v, %v", set, err)
	}
	if set := w.setSecrets(n, "A", "hunter4"); set.Version <= two.Version {
		t.Errorf("version %d came again as %d", two.Version, set.Version)
	}
	n.kill()
	forms := [][]byte{[]byte("hunter"), []byte(base64.StdEncoding.EncodeToString([]byte("hunter")))}
	err = filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, form := range forms {
			if bytes.Contains(b, form) {
				t.Errorf("a secret is in %s", path)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if got := log.b.Bytes(); bytes.Contains(got, forms[0]) || !bytes.Contains(got, []byte("secrets changed")) {
		t.Error("a secret is in the log, or the change is not")
	}
}

// A machine's host is given its secrets, and the target of its migration; nobody else is.
func TestSecretsGoWhereTheirMachineIs(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	set := w.setSecrets(n, "TOKEN", "hunter2")
	v := w.machine(n, CreateMachine{Host: "h1"})
	bare := w.machine(n, CreateMachine{Host: "h1", SecretsWish: SecretsWish{SkipSecrets: true}})
	h1, h2, h3 := w.secretsOf("h1"), w.secretsOf("h2"), w.secretsOf("h3")
	if got, err := w.gets(h1, v.Machine.ID); err != nil || got.Version != set.Version || got.Values["TOKEN"].Reveal() != "hunter2" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := w.gets(h1, bare.Machine.ID); err != nil || len(got.Values) != 0 {
		t.Errorf("a machine that is to have none gets %+v, %v", got, err)
	}
	for _, h := range []*natsbus.HostSecrets{h2, h3} {
		if _, err := w.gets(h, v.Machine.ID); !drover.Is(err, drover.Conflict) {
			t.Errorf("another host: %v", err)
		}
	}
	n.kill()
	reached, release := make(chan struct{}), make(chan struct{})
	n = w.control("c1", func(point string) bool {
		if point == "fleet.move.quiesce.before" {
			close(reached)
			<-release
		}
		return false
	})
	m, err := n.MoveMachine(t.Context(), Move{Machine: v.Machine.ID, Target: "h2"})
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	if got, err := w.gets(h2, v.Machine.ID); err != nil || got.Values["TOKEN"].Reveal() != "hunter2" {
		t.Errorf("the target of a migration: %+v, %v", got, err)
	}
	close(release)
	w.ended(n, m.ID)
	if _, err := w.gets(h1, v.Machine.ID); !drover.Is(err, drover.Conflict) {
		t.Errorf("the source after the move: %v", err)
	}
	// A host that says that it is another one gets what it cannot read.
	sly := natsbus.NewHostSecrets(w.connect(t.Context(), "sly"), "h2", w.tls("h1", false))
	if _, err := w.gets(sly, v.Machine.ID); !drover.Is(err, drover.Denied) {
		t.Errorf("in another's name: %v", err)
	}
}

// What a start needs is what there was when it was asked for, or what was asked for; a version that there is not is refused at once.
func TestAMachineNeedsTheSecretsOfItsTime(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	needs := func(id drover.MachineID) uint64 {
		m, _, err := n.state.machines.get(ctx, string(id))
		if err != nil {
			t.Fatal(err)
		}
		return m.SecretsVersion
	}
	id := w.machine(n, CreateMachine{}).Machine.ID
	if needs(id) != 0 {
		t.Error("it needs secrets that there are not")
	}
	set := w.setSecrets(n, "A", "one")
	if needs(id) != 0 {
		t.Error("a change of the secrets changed the machine")
	}
	if _, err := n.RestartMachine(ctx, "shop", id, drover.StopConfig{}); err != nil || needs(id) != set.Version {
		t.Errorf("%v, needs %d of %d", err, needs(id), set.Version)
	}
	config := drover.MachineConfig{Image: "busybox"}
	wish := SecretsWish{MinSecretsVersion: set.Version}
	if _, err := n.UpdateMachine(ctx, UpdateMachine{App: "shop", Machine: id, Config: config, SecretsWish: wish}); err != nil {
		t.Error(err)
	}
	wish.MinSecretsVersion++
	_, uerr := n.UpdateMachine(ctx, UpdateMachine{App: "shop", Machine: id, Config: config, SecretsWish: wish})
	_, cerr := n.CreateMachine(ctx, CreateMachine{App: "shop", Config: config, SecretsWish: wish})
	_, lerr := n.Secrets(ctx, "shop", wish.MinSecretsVersion)
	for what, err := range map[string]error{"update": uerr, "create": cerr, "list": lerr} {
		if !drover.Is(err, drover.Precondition) || !strings.Contains(err.Error(), "there is no version") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := n.UpdateMachine(ctx, UpdateMachine{App: "shop", Machine: id, Config: config, SecretsWish: SecretsWish{SkipSecrets: true}}); err != nil || needs(id) != 0 {
		t.Errorf("%v, needs %d", err, needs(id))
	}
}

// The control host may die at any step of a change: what was answered stays, what was not is there or is not, and no key is left.
func TestACrashAtEachStepOfAChangeOfSecrets(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	for _, point := range []string{"fleet.secrets.key.after", "fleet.secrets.change.before", "fleet.secrets.change.after", "fleet.secrets.drop.after"} {
		n.kill()
		n = w.control("c1", killOnce(point))
		if err := n.await(t.Context()); err != nil {
			t.Fatal(err)
		}
		gone := make(chan struct{})
		go func(n *node) { // it dies
			defer close(gone)
			_, _ = n.ChangeSecrets(t.Context(), "shop", secretChanges("A", "one"))
			_, _, _ = n.DestroyApp(t.Context(), DestroyApp{App: "shop"})
		}(n)
		<-n.dead
		<-gone
		n.kill()
		n = w.control("c1", nil)
		w.eventually("the app lives, or its end has come to its end", func() bool {
			_, live := n.App(t.Context(), "shop")
			_, there := n.AnyApp(t.Context(), "shop")
			return live == nil || drover.Is(there, drover.NotFound)
		})
		if _, err := n.CreateApp(t.Context(), drover.App{Name: "shop"}); err != nil && !drover.Is(err, drover.Exists) {
			t.Fatal(err)
		}
		set := w.setSecrets(n, "A", "one", "B", point)
		values, err := n.SecretValues(t.Context(), "shop")
		if err != nil || len(set.Secrets) != 2 || values.Values["A"].Reveal() != "one" || values.Values["B"].Reveal() != point {
			t.Errorf("%s: %+v, %v", point, set, err)
		}
		w.setSecrets(n, "A", "-", "B", "-")
	}
	w.destroyApp(n, "shop")
	w.checkEmpty(n)
}

// Secrets of an app that is gone are swept away, with their key.
func TestSecretsOfNoAppAreDestroyed(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	w.setSecrets(n, "A", "one")
	if err := n.state.apps.remove(t.Context(), "shop", 0); err != nil {
		t.Fatal(err)
	}
	w.checkEmpty(n)
	if apps, err := n.secrets.Apps(t.Context()); err != nil || len(apps) != 0 {
		t.Errorf("%v, %v", apps, err)
	}
}
