package guest

import (
	"strconv"
	"strings"

	"drover"

	"golang.org/x/sys/unix"
)

// maxSignal is the highest signal number of Linux. minRealTime is SIGRTMIN as programs know it: the two before it are the C library's.
const (
	maxSignal   = 64
	minRealTime = 34
)

// realTime is the number of a name such as RTMIN+3, by which images with an init of their own are stopped; 0 if it is none.
func realTime(name string) unix.Signal {
	for base, from := range map[string]int{"RTMIN": minRealTime, "RTMAX": maxSignal} {
		rest, ok := strings.CutPrefix(name, base)
		if !ok {
			continue
		}
		n, err := strconv.Atoi(rest)
		if n += from; (err == nil || rest == "") && n >= minRealTime && n <= maxSignal {
			return unix.Signal(n)
		}
	}
	return 0
}

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
	if n := realTime(strings.TrimPrefix(text, "SIG")); n != 0 {
		return n, nil
	}
	return 0, drover.Errorf(drover.Invalid, "there is no signal %q", name).
		WithHint("give a name such as SIGTERM, or a number").WithField("signal")
}
