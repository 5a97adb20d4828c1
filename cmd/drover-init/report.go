package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/guest"
)

// reportPatience is how long a report waits for the host to take it.
const reportPatience = 10 * time.Second

// reporter writes status events. Before its port is open they are kept, and said on the console.
type reporter struct {
	mu      sync.Mutex
	run     string
	port    *port
	pending []byte
}

// emit reports an event, with time and run filled in. An event that the host does not take is said on the console.
func (r *reporter) emit(ev guest.StatusEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ev.T, ev.Run, ev.Uptime = time.Now().UnixNano(), r.run, uptime()
	line, err := json.Marshal(ev)
	if err != nil {
		console("cannot encode a report: %v", err)
		return
	}
	line = append(line, '\n')
	if ev.Error != "" {
		console("%s", line[:len(line)-1])
	}
	if r.port == nil {
		r.pending = append(r.pending, line...)
		return
	}
	if err := r.port.write(line, reportPatience); err != nil {
		console("cannot report %s: %v", line[:len(line)-1], err)
	}
}

// attach gives the reporter its port, and the port what was kept.
func (r *reporter) attach(p *port) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.port = p
	if err := p.write(r.pending, reportPatience); err != nil {
		console("cannot report: %v", err)
	}
	r.pending = nil
}

func (r *reporter) setRun(run string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.run = run
}

// console writes to the VM's serial console: for what the host cannot be told in a better way.
func console(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stderr, "drover-init: "+format+"\n", args...) // the last resort: an error here has no reader
}

// uptime is the time since the kernel started, in seconds.
func uptime() float64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return float64(ts.Nano()) / float64(time.Second)
}
