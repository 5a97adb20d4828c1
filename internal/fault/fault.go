// Package fault makes crashes happen at a named place, so that a kill test is repeatable. Code that must survive a
// crash calls Hit at each step; in production the Points are nil and Hit does nothing.
//
// A fault is armed from outside by a file in the fault directory, named after the place. Its content is "process"
// (the process is killed by SIGKILL), "host" (the host's power is cut: see PowerSocket) or "hold" (the process waits there until
// Release, so that something else can be done to somebody else at just that moment: see hold.go). A fault strikes once: the file is
// removed first.
//
// The same directory holds the step of the host's clock (clock.go).
package fault

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// The environment variables that a process started for fault tests gets.
const (
	// EnvDir names the fault directory.
	EnvDir = "DROVER_FAULT_DIR"
	// EnvPowerSocket names a unix socket; whatever listens there cuts the host's power when somebody connects.
	EnvPowerSocket = "DROVER_POWER_SOCKET"
)

// Points is the set of armed faults of one process. A nil *Points has none.
type Points struct {
	dir   string
	power string
}

// FromEnv returns the Points that the environment asks for, nil when it asks for none.
func FromEnv(getenv func(string) string) *Points {
	dir := getenv(EnvDir)
	if dir == "" {
		return nil
	}
	return &Points{dir: dir, power: getenv(EnvPowerSocket)}
}

// kinds are what can be armed.
var kinds = []string{"process", "host", "hold"}

// Arm makes the next Hit of name, by whichever process has the directory, strike. kind is "process", "host" or "hold".
func Arm(dir, name, kind string) error {
	if !slices.Contains(kinds, kind) {
		return fmt.Errorf("fault kind %q is none of %v", kind, kinds)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), []byte(kind), 0o600)
}

// Armed reports whether a fault is armed whose name begins with the prefix: for code that cannot afford Hit each time.
func (p *Points) Armed(prefix string) bool {
	if p == nil {
		return false
	}
	entries, err := os.ReadDir(p.dir)
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), prefix) })
}

// Hit strikes when a fault of the name is armed; then it does not return, unless the process is only held.
func (p *Points) Hit(name string) {
	if p == nil {
		return
	}
	path := filepath.Join(p.dir, name)
	kind, err := os.ReadFile(path)
	if err != nil {
		return // not armed
	}
	if strings.TrimSpace(string(kind)) == "hold" {
		hold(path)
		return
	}
	if err := os.Remove(path); err != nil {
		return // another process was faster: a fault strikes once
	}
	if strings.TrimSpace(string(kind)) == "host" {
		if c, err := net.Dial("unix", p.power); err == nil {
			defer c.Close()
			select {} // the power goes out any moment now
		}
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
