package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"drover"
	"drover/guest"
)

// realFiles are the files that the VMM and the guest write.
type realFiles struct{}

var _ guestFiles = realFiles{}

// Bounds of one logs answer (see drover.LogsAnswer).
const (
	maxLogLines = 1000
	maxLogBytes = 256 << 10
)

// WriteConfig writes the config disk.
func (realFiles) WriteConfig(path string, cfg guest.Config) error {
	return guest.WriteConfig(path, cfg)
}

// Reports reads what is in the status file now.
func (realFiles) Reports(ctx context.Context, path string, offset int64) ([]report, int64, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, offset, nil
	case err != nil:
		return nil, offset, drover.Errorf(drover.Internal, "cannot read %s: %w", path, err)
	case st.Size() == offset:
		return nil, offset, nil
	}
	var reports []report
	ctx, cancel := context.WithCancel(ctx)
	cancel() // no waiting: only what is there
	err = guest.TailStatus(ctx, path, offset, func(ev guest.StatusEvent, next int64) error {
		reports, offset = append(reports, reportOf(ev)), next
		return nil
	})
	if errors.Is(err, ctx.Err()) {
		err = nil
	}
	return reports, offset, err
}

// reportOf translates a guest's report.
func reportOf(ev guest.StatusEvent) report {
	r := report{Run: ev.Run, At: ev.At.UTC(), Code: ev.Code, Signal: ev.Signal, OOM: ev.OOM, Text: ev.Error, Checks: ev.Checks}
	switch ev.Event {
	case guest.EventStarted:
		r.Kind = reportStarted
	case guest.EventExited:
		r.Kind = reportExited
	case guest.EventFailed:
		r.Kind = reportFailed
		r.Text = strings.TrimPrefix(ev.Stage+": "+ev.Error, ": ")
	case guest.EventChecks:
		r.Kind = reportChecks
	case guest.EventChecking:
		r.Kind, r.Text = reportChecking, ev.Stage
	}
	return r
}

// ReadLog reads a part of the log.
func (realFiles) ReadLog(path string, req drover.LogsRequest) (drover.LogsAnswer, error) {
	offset := req.Offset
	if offset < 0 {
		var err error
		if offset, err = guest.TailLog(path, max(req.Tail, 0)); err != nil {
			return drover.LogsAnswer{}, err
		}
	}
	lines, next, err := guest.ReadLog(path, offset, maxLogLines, maxLogBytes)
	return drover.LogsAnswer{Lines: lines, Next: next}, err
}

// TrimLog keeps a log within its bound.
func (realFiles) TrimLog(path string) error { return guest.TrimLog(path, guest.LogKeep) }

// TrimRead gives back what was read of a status file.
func (realFiles) TrimRead(path string, offset int64) error { return guest.TrimBefore(path, offset) }
