package host

import (
	"context"
	"time"

	"drover"
	"drover/boltstore"
	"drover/guest"
)

// guestFiles is what lies beside a VM: the config that it reads, the reports and the log that it writes. Package guest knows
// their forms.
type guestFiles interface {
	// WriteConfig writes the config disk, durably.
	WriteConfig(path string, cfg guest.Config) error
	// Reports reads the whole reports from the offset on, and tells where to go on. A missing file has none.
	Reports(ctx context.Context, path string, offset int64) ([]report, int64, error)
	// ReadLog answers a logs request at once, without waiting.
	ReadLog(path string, req drover.LogsRequest) (drover.LogsAnswer, error)
	// TrimLog keeps a log within its bound.
	TrimLog(path string) error
	// TrimRead gives back what lies before the offset, up to which a status file was read.
	TrimRead(path string, offset int64) error
	// ReportsEnd returns the offset, or the length of the reports if that is smaller.
	ReportsEnd(path string, offset int64) (int64, error)
	// BeginLog makes a log that goes on where that of another host ended.
	BeginLog(path string, next int64) error
}

// report is one line of a status file.
type report struct {
	// Run is the boot that it belongs to (guest.Config.Run).
	Run  string
	Kind reportKind
	At   time.Time
	// Code, Signal, OOM and Text belong to an exit; Text also to a failed boot.
	Code   int
	Signal int
	OOM    bool
	Text   string
	Checks []drover.CheckStatus
}

// reportKind is what a report tells.
type reportKind string

const (
	reportStarted reportKind = "started"
	reportExited  reportKind = "exited"
	reportFailed  reportKind = "failed"
	reportChecks  reportKind = "checks"
	// reportChecking is of a boot that checks a file system.
	reportChecking reportKind = "checking"
	// reportOther is one that the agent has no use for.
	reportOther reportKind = ""
)

// readReports takes over what the guest has reported since the last time. The offset is stored with what was learnt.
func (m *machine) readReports(ctx context.Context) error {
	vm := m.rec.Load().Obs.VM
	if !vm.Live {
		return nil
	}
	reports, next, err := m.agent.cfg.files.Reports(ctx, m.statusPath(), vm.Offset)
	if err != nil || next == vm.Offset {
		return err
	}
	return m.change(func(r *records, tx *boltstore.Tx) error {
		r.Obs.VM.Offset = next
		started := false
		for _, rep := range reports {
			// A boot that failed before it had read its config cannot tell its name.
			if rep.Run == bootName(m.id, r.Obs.VM) || rep.Run == "" && rep.Kind == reportFailed {
				started = started || rep.Kind == reportStarted
				r.learn(rep, m.agent.now())
			}
		}
		if started {
			return m.markUsed(r, tx)
		}
		return nil
	})
}

// learn takes one report of the present VM over.
func (r *records) learn(rep report, now time.Time) {
	o := &r.Obs
	switch rep.Kind {
	case reportStarted:
		o.VM.MainStarted = true
		o.BootTries, o.StartTries, o.RetryAt = 0, 0, time.Time{}
		o.Status.StartedAt, o.Status.Reason = rep.At, ""
		if o.VM.StopAt.IsZero() {
			o.Status.State = drover.StateStarted
		}
		r.event(now, event{kind: "start", source: "guest"})
	case reportExited:
		o.VM.Exit = &exitReport{Code: rep.Code, Signal: rep.Signal, OOM: rep.OOM, Text: rep.Text, At: rep.At}
	case reportFailed:
		o.VM.BootError = rep.Text
	case reportChecks:
		o.Status.Checks = rep.Checks
	case reportChecking:
		o.VM.Checking, o.Status.Reason = true, "the boot goes on to "+rep.Text+", which had errors"
		r.event(now, event{kind: "check", source: "guest", text: rep.Text})
	case reportOther:
	}
}

// markUsed remembers that the volumes were mounted: from now on a blank one is not a new one.
func (m *machine) markUsed(r *records, tx *boltstore.Tx) error {
	for _, mount := range r.Desired.Machine.Config.Mounts {
		key := string(mount.Volume.Disk())
		disk, ok, err := diskBucket.Get(tx, key)
		if err != nil {
			return err
		}
		if !ok || disk.Used {
			continue
		}
		disk.Used = true
		if err := diskBucket.Put(tx, key, disk); err != nil {
			return err
		}
	}
	return nil
}
