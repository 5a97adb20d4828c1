package host

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"drover"
)

// conditionKind declares a kind of condition. docs/CONDITIONS.md has a part for each code.
type conditionKind struct {
	code     drover.ConditionCode
	severity drover.Severity
	// after is how long it must be so before it is shown: what comes and goes by itself is nobody's business.
	after time.Duration
	// text says what it is; it is completed by what was found.
	text string
}

// conditionKinds are all that a host may say. The first of a code that fits counts.
func conditionKinds() []conditionKind {
	return []conditionKind{
		{drover.PoolFull, drover.SeverityCritical, 0, "volumes get no new blocks, or soon will not: %d MiB of the disk are free, and %d MiB are kept for the host's records"},
		{drover.PoolFilling, drover.SeverityCritical, 10 * time.Second, "the disk is %d %% full: %d MiB of %d MiB are free"},
		{drover.PoolFilling, drover.SeverityWarning, 10 * time.Second, "the disk is %d %% full: %d MiB of %d MiB are free"},
		{drover.DiskStalled, drover.SeverityCritical, 0, "the disk hangs: a write of one block has not ended for %v"},
		{drover.DiskFailing, drover.SeverityCritical, 0, "the disk fails: %v"},
		{drover.LayerDamaged, drover.SeverityCritical, 0, "layer %s cannot be read in %s, for want of the right checksum or of a source that was written off, the first at offset %d"},
		{drover.LayerRefused, drover.SeverityCritical, 0, "layer %s: %s"},
		{drover.KeyMissing, drover.SeverityCritical, 10 * time.Second, "%s"},
		{drover.HydrationStalled, drover.SeverityWarning, 0, "layer %s makes no progress: %s"},
		{drover.MeshDown, drover.SeverityCritical, 10 * time.Second, "machines of this host and of others do not reach each other: %s"},
		{drover.MeshLinkBad, drover.SeverityWarning, 5 * time.Second, "%s"},
		{drover.MeshKeyWaits, drover.SeverityWarning, time.Minute, "%s"},
		{drover.SnapshotFailing, drover.SeverityWarning, 2 * time.Minute, "layer %s is not on its way to the object store: %s"},
	}
}

// conditionKindOf returns the declared kind.
func conditionKindOf(code drover.ConditionCode, severity drover.Severity) conditionKind {
	for _, k := range conditionKinds() {
		if k.code == code && k.severity == severity {
			return k
		}
	}
	panic(fmt.Sprintf("the condition %s (%s) is not declared", code, severity))
}

// conditionKey tells one condition from another.
type conditionKey struct {
	Code     drover.ConditionCode `json:"code"`
	Severity drover.Severity      `json:"severity"`
	Subject  string               `json:"subject,omitempty"`
}

// found is something that is not as it should be at this moment.
type found struct {
	conditionKey
	text string
}

func find(code drover.ConditionCode, severity drover.Severity, subject string, details ...any) found {
	return found{conditionKey{code, severity, subject}, fmt.Sprintf(conditionKindOf(code, severity).text, details...)}
}

// The shares of the disk, in per cent, from which it is filling. A condition that is there ends a little below, so that it does not come and
// go with every file.
const (
	fillingWarning  = 80
	fillingCritical = 90
	fillingBand     = 3
)

// fullMargin: a guest writes some MiB at once, and is refused as a whole when these do not fit above the floor.
const fullMargin = 4 * drover.MiB

// poolFindings looks at the file system of the pool. before has what was there at the last look.
func poolFindings(total, free, floor drover.Bytes, before map[conditionKey]time.Time) []found {
	if total <= 0 {
		return nil
	}
	var out []found
	if free < floor+min(floor, fullMargin) {
		out = append(out, find(drover.PoolFull, drover.SeverityCritical, "", free/drover.MiB, floor/drover.MiB))
	}
	percent := int((total - free) * 100 / total)
	for _, level := range []struct {
		severity drover.Severity
		from     int
	}{{drover.SeverityCritical, fillingCritical}, {drover.SeverityWarning, fillingWarning}} {
		from := level.from
		if _, was := before[conditionKey{Code: drover.PoolFilling, Severity: level.severity}]; was {
			from -= fillingBand
		}
		if percent >= from {
			return append(out, find(drover.PoolFilling, level.severity, "", percent, free/drover.MiB, total/drover.MiB))
		}
	}
	return out
}

// layerFindings looks at what the storage daemon says of a layer.
func layerFindings(l drover.LayerStatus) []found {
	var out []found
	if l.Trouble != "" {
		out = append(out, find(drover.LayerRefused, drover.SeverityCritical, layerSubject(l), l.ID, l.Trouble))
	}
	if v := l.Verification; v != nil && len(v.Damaged) > 0 {
		out = append(out, find(drover.LayerDamaged, drover.SeverityCritical, layerSubject(l), l.ID, places(len(v.Damaged)), v.Damaged[0].Offset))
	}
	if h := l.Hydration; h != nil && h.Stalled && !h.Done && !h.Paused {
		out = append(out, find(drover.HydrationStalled, drover.SeverityWarning, layerSubject(l), l.ID, cmp.Or(h.Waiting, "nothing was copied")))
	}
	if u := l.Upload; u != nil && !u.Done && u.Waiting != "" {
		out = append(out, find(drover.SnapshotFailing, drover.SeverityWarning, string(u.Snapshot), l.ID, u.Waiting))
	}
	return out
}

// layerSubject is the volume that the layer is of, else the layer: a user knows the one, an operator the other.
func layerSubject(l drover.LayerStatus) string {
	if strings.HasPrefix(string(l.Disk), "vol_") {
		return string(l.Disk)
	}
	return string(l.ID)
}

func places(n int) string {
	switch {
	case n == 1:
		return "1 place"
	case n >= drover.MaxDamaged:
		return fmt.Sprintf("at least %d places", n)
	}
	return fmt.Sprintf("%d places", n)
}

// visible are the conditions that have been there for long enough, in an order that does not change from look to look. Of two findings
// with one key the first counts.
func visible(all []found, since map[conditionKey]time.Time, now time.Time) []drover.Condition {
	var out []drover.Condition
	told := map[conditionKey]bool{}
	for _, f := range all {
		at := since[f.conditionKey]
		if told[f.conditionKey] || now.Sub(at) < conditionKindOf(f.Code, f.Severity).after {
			continue
		}
		told[f.conditionKey] = true
		out = append(out, drover.Condition{Code: f.Code, Severity: f.Severity, Subject: f.Subject, Text: f.text, Since: at})
	}
	slices.SortFunc(out, func(a, b drover.Condition) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Severity, b.Severity))
	})
	return out
}

// sinceWhen carries the times over of what is still there. What is new is there since now.
func sinceWhen(all []found, before map[conditionKey]time.Time, now time.Time) map[conditionKey]time.Time {
	since := map[conditionKey]time.Time{}
	for _, f := range all {
		at, ok := before[f.conditionKey]
		if !ok {
			at = now
		}
		since[f.conditionKey] = at
	}
	return since
}
