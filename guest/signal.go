package guest

import (
	"strconv"
	"strings"

	"drover"

	"golang.org/x/sys/unix"
)

// maxSignal is the highest signal number of Linux.
const maxSignal = 64

// ParseSignal returns the number of a signal that is named as "SIGTERM", "TERM" or "15". Invalid when there is none of the name.
func ParseSignal(name string) (unix.Signal, error) {
	text := strings.ToUpper(strings.TrimSpace(name))
	if n, err := strconv.Atoi(text); err == nil && n >= 1 && n <= maxSignal {
		return unix.Signal(n), nil
	}
	if !strings.HasPrefix(text, "SIG") {
		text = "SIG" + text
	}
	if n := unix.SignalNum(text); n != 0 {
		return n, nil
	}
	return 0, drover.Errorf(drover.Invalid, "there is no signal %q", name).
		WithHint("give a name such as SIGTERM, or a number").WithField("signal")
}
