package powercommand

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
)

func TestThePowerCommandIsToldTheHost(t *testing.T) {
	at := filepath.Join(t.TempDir(), "off")
	said, err := Command{"/bin/sh", "-c", `echo "$1" > "$0"; echo done`, at, "host={host}"}.Off(t.Context(), "h1")
	if err != nil || said != "done" {
		t.Fatalf("%q, %v", said, err)
	}
	if got, err := os.ReadFile(at); err != nil || string(got) != "host=h1\n" {
		t.Errorf("told %q, %v", got, err)
	}
}

func TestAPowerCommandThatIsNotCertainFails(t *testing.T) {
	for name, c := range map[string]struct {
		command Command
		words   string
	}{
		"an exit code":      {Command{"/bin/sh", "-c", "echo no such outlet >&2; exit 3"}, "exit status 3: no such outlet"},
		"no such program":   {Command{"/nowhere/off", "{host}"}, "/nowhere/off"},
		"it does not end":   {Command{"/bin/sh", "-c", "sleep 1000 & sleep 1000"}, "did not end in time"},
		"ended by a signal": {Command{"/bin/sh", "-c", "kill -9 $$"}, "signal: killed"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if name == "it does not end" {
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			}
			defer cancel()
			_, err := c.command.Off(ctx, "h1")
			if !drover.Is(err, drover.Unavailable) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v", err)
			}
		})
	}
}
