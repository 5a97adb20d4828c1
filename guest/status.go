package guest

import (
	"cmp"
	"context"
	"encoding/json"
	"os"
	"time"

	"drover"
)

// What a StatusEvent tells.
const (
	// EventChecking: a file system that had errors is checked before it is mounted, which may take long; the boot has CheckDeadline from now on.
	EventChecking = "checking"
	// EventBooted: disks and network are ready.
	EventBooted = "booted"
	// EventStarted: the main process was executed.
	EventStarted = "started"
	// EventChecks: the result of a health check changed, or health checking begins.
	EventChecks = "checks"
	// EventExited: the main process ended, or could not be executed.
	EventExited = "exited"
	// EventFailed: the boot did not get to the main process.
	EventFailed = "failed"
	// EventPowerOff: everything is unmounted; the VM ends now.
	EventPowerOff = "poweroff"
	// EventUnreadable stands for a line that is no event, such as one that a full disk cut; Error has it.
	EventUnreadable = "unreadable"
)

// StatusEvent is one report of drover-init. Which fields are set depends on Event.
type StatusEvent struct {
	// T is the guest's clock in nanoseconds since 1970. It may be off by a second: a guest without a paravirtual clock reads a
	// clock that counts seconds when it boots.
	T int64 `json:"t"`
	// At is when the host's file got the report, by the host's clock; TailStatus fills it in.
	At time.Time `json:"-"`
	// Run is Config.Run; empty when the boot failed before the config was read.
	Run   string `json:"run"`
	Event string `json:"event"`
	// Uptime is the time in seconds since the guest's kernel started.
	Uptime float64 `json:"uptime"`
	// PID is the main process's (started).
	PID int `json:"pid,omitempty"`
	// Code is the exit code of the main process, 128+N after signal N (exited).
	Code int `json:"code,omitempty"`
	// Signal is the signal that ended the main process (exited).
	Signal int `json:"signal,omitempty"`
	// OOM: the kernel killed a process for lack of memory during this boot (exited).
	OOM bool `json:"oom,omitempty"`
	// Stage is what the boot was doing (failed), or does (checking).
	Stage string `json:"stage,omitempty"`
	// Error says in words what went wrong (failed; exited without started; poweroff when something could not be unmounted).
	Error string `json:"error,omitempty"`
	// Formatted lists the volumes, by Volume.Name, that got a file system in this boot (booted). It is durable: the next boot
	// does not need Volume.MkFS.
	Formatted []string `json:"formatted,omitempty"`
	// Checks has every check of the machine, sorted by name (checks).
	Checks []drover.CheckStatus `json:"checks,omitempty"`
}

// TailStatus calls fn for each report in the status file at path, beginning at offset from (0: all), and goes on as the file
// grows, until ctx ends or fn returns an error, which it returns. next is the offset after the event: to begin there later means
// to see no event twice. A report arrives within a few milliseconds of its being written. An empty file is made when there is
// none. A file that is shorter than from is a new one and is read from its beginning.
func TailStatus(ctx context.Context, path string, from int64, fn func(ev StatusEvent, next int64) error) error {
	w, err := watchFile(path)
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		chunk, err := readLines(path, from, 1000, maxLine)
		if err != nil {
			return err
		}
		events, err := parseChunk(path, chunk)
		if err != nil {
			return err
		}
		for i, ev := range events {
			if err := fn(ev, chunk.lines[i].next); err != nil {
				return err
			}
		}
		from = chunk.next
		if len(chunk.lines) > 0 {
			continue
		}
		if err := w.Wait(ctx); err != nil {
			return err
		}
	}
}

// parseChunk reads the reports of a chunk and gives them the host's time: the file was last written when its last report came, and
// the guest's clock tells how long before that the others did.
func parseChunk(path string, c chunk) ([]StatusEvent, error) {
	if len(c.lines) == 0 {
		return nil, nil
	}
	file, err := os.Stat(path)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot look at %s: %w", path, err)
	}
	events := make([]StatusEvent, len(c.lines))
	var last int64
	for i, line := range c.lines {
		events[i] = parseStatus(line.text)
		last = cmp.Or(events[i].T, last)
	}
	for i, ev := range events {
		events[i].At = file.ModTime().Add(-time.Duration(last - cmp.Or(ev.T, last)))
	}
	return events, nil
}

func parseStatus(line []byte) StatusEvent {
	var ev StatusEvent
	if err := json.Unmarshal(line, &ev); err != nil || ev.Event == "" {
		return StatusEvent{Event: EventUnreadable, Error: string(line)}
	}
	return ev
}
