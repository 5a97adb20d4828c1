package migrate

import (
	"time"

	"drover"
)

// WrittenOff takes in what was lost with the source. Nothing is waited for from then on.
func WrittenOff(m drover.Migration, p drover.MoveProgress, now time.Time) drover.Migration {
	m = Progressed(m, p, now)
	w := *m.WriteOff
	w.DoneAt, w.Disks = now, nil
	for _, d := range m.Disks {
		if h, ok := p.Hydration[d.Disk]; ok && h.Lost > 0 {
			w.Disks = append(w.Disks, drover.DiskLoss{Disk: d.Disk, Volume: d.Volume, Lost: h.Lost, Holes: h.Holes})
		}
	}
	m.WriteOff = &w
	return m
}

// pendingWriteOff reports whether the source was given up and the target has not done so yet.
func pendingWriteOff(m drover.Migration) bool { return m.WriteOff != nil && m.WriteOff.DoneAt.IsZero() }
