package host

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"drover"
	"drover/internal/durable"
)

const (
	// watchEvery is how often the host looks for conditions, watchWait how long the storage daemon may take to describe its layers.
	watchEvery = 5 * time.Second
	watchWait  = 10 * time.Second
)

// watcher knows what is not as it should be. Since when is kept in the run directory, so that it outlives the agent, and needs no room on
// a full disk.
type watcher struct {
	mu    sync.Mutex
	since map[conditionKey]time.Time
	shown []drover.Condition
	// layers is what the storage daemon said last: what does not answer has not got better.
	layers []drover.LayerStatus
	// reported is what other parts of the agent have seen and not taken back.
	reported map[conditionKey]found
}

// sinceFile is the form of the file.
type sinceFile struct {
	Since []sinceEntry `json:"since"`
}

type sinceEntry struct {
	conditionKey
	At time.Time `json:"at"`
}

func (a *Agent) sincePath() string { return filepath.Join(a.cfg.RunDir, "conditions.json") }

// watchLoop looks again and again.
func (a *Agent) watchLoop(ctx context.Context) {
	a.loadSince()
	for ctx.Err() == nil {
		a.watch(ctx)
		pause(ctx, watchEvery)
	}
}

// loadSince reads what the agent before this one knew. What cannot be read begins anew.
func (a *Agent) loadSince() {
	w := &a.watched
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = map[conditionKey]time.Time{}
	data, err := os.ReadFile(a.sincePath())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var file sinceFile
	if err == nil {
		err = json.Unmarshal(data, &file)
	}
	if err != nil {
		a.cfg.Log.Warn("cannot read since when conditions are there: they begin anew", "err", err)
		return
	}
	for _, e := range file.Since {
		w.since[e.conditionKey] = e.At
	}
}

// watch looks once.
func (a *Agent) watch(ctx context.Context) {
	w := &a.watched
	layers, lerr := a.layersNow(ctx)
	total, free, derr := a.cfg.DiskSpace(a.cfg.DataDir)
	if err := errors.Join(lerr, derr); err != nil && ctx.Err() == nil {
		a.cfg.Log.Warn("cannot look for conditions everywhere", "err", err)
	}
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	if lerr == nil {
		w.layers = layers
	}
	var all []found
	if derr == nil {
		all = poolFindings(total, free, drover.PoolFloor(total, a.cfg.PoolFloor), w.since)
	}
	all = append(all, a.trial.findings(time.Now())...)
	for _, l := range w.layers {
		all = append(all, layerFindings(l)...)
	}
	if lerr == nil {
		w.forgetKeys()
	}
	for _, f := range w.reported {
		all = append(all, f)
	}
	now, before := a.now().UTC(), w.since
	w.since = sinceWhen(all, before, now)
	was := w.shown
	w.shown = visible(all, w.since, now)
	shown, since := w.shown, w.since
	w.mu.Unlock()
	a.tellConditions(was, shown)
	if !maps.Equal(before, since) {
		a.saveSince(since)
	}
}

// shortOf says what this host has too little of for its machines' disks, or what ails its disk, now or when it was looked last; empty when it does well.
func (a *Agent) shortOf() string {
	var all []found
	if total, free, err := a.cfg.DiskSpace(a.cfg.DataDir); err == nil { // that it cannot be asked is told by watch
		all = poolFindings(total, free, drover.PoolFloor(total, a.cfg.PoolFloor), nil)
	}
	all = append(all, a.trial.findings(time.Now())...)
	for _, f := range all {
		if f.Code != drover.PoolFilling {
			return f.text
		}
	}
	a.watched.mu.Lock()
	defer a.watched.mu.Unlock()
	for _, c := range a.watched.shown {
		if slices.Contains([]drover.ConditionCode{drover.PoolFull, drover.DiskStalled, drover.DiskFailing}, c.Code) {
			return c.Text
		}
	}
	return ""
}

// forgetKeys takes back the reports of keys that no layer here needs any more. The caller holds the lock.
func (w *watcher) forgetKeys() {
	maps.DeleteFunc(w.reported, func(k conditionKey, _ found) bool {
		return k.Code == drover.KeyMissing && !slices.ContainsFunc(w.layers, func(l drover.LayerStatus) bool {
			return l.Cipher != nil && string(l.Cipher.Key) == k.Subject
		})
	})
}

func (a *Agent) layersNow(ctx context.Context) ([]drover.LayerStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, watchWait)
	defer cancel()
	return a.cfg.Storage.Layers(ctx)
}

// tellConditions writes to the log what has come and gone.
func (a *Agent) tellConditions(was, is []drover.Condition) {
	among := func(c drover.Condition, all []drover.Condition) bool {
		return slices.ContainsFunc(all, func(o drover.Condition) bool {
			return o.Code == c.Code && o.Severity == c.Severity && o.Subject == c.Subject
		})
	}
	for _, c := range is {
		if !among(c, was) {
			a.cfg.Log.Warn("condition", "code", string(c.Code), "severity", string(c.Severity), "subject", c.Subject, "text", c.Text)
		}
	}
	for _, c := range was {
		if !among(c, is) {
			a.cfg.Log.Info("condition is over", "code", string(c.Code), "severity", string(c.Severity), "subject", c.Subject)
		}
	}
}

// saveSince keeps since when what is there is there.
func (a *Agent) saveSince(since map[conditionKey]time.Time) {
	var file sinceFile
	for key, at := range since {
		file.Since = append(file.Since, sinceEntry{conditionKey: key, At: at})
	}
	err := durable.MkdirAll(a.cfg.RunDir, 0o700)
	if err == nil {
		err = durable.WriteJSON(a.sincePath(), file, 0o600)
	}
	if err != nil {
		a.cfg.Log.Warn("cannot keep since when conditions are there", "err", err)
	}
}

// conditions returns what is not as it should be now.
func (a *Agent) conditions() []drover.Condition {
	a.watched.mu.Lock()
	defer a.watched.mu.Unlock()
	return slices.Clone(a.watched.shown)
}

// reportCondition makes something a condition that another part of the agent has seen, until withdrawCondition takes it back.
func (a *Agent) reportCondition(code drover.ConditionCode, severity drover.Severity, subject string, details ...any) {
	f := find(code, severity, subject, details...)
	a.watched.mu.Lock()
	defer a.watched.mu.Unlock()
	if a.watched.reported == nil {
		a.watched.reported = map[conditionKey]found{}
	}
	a.watched.reported[f.conditionKey] = f
}

// withdrawCondition takes a report back. One that was not made is no mistake.
func (a *Agent) withdrawCondition(code drover.ConditionCode, severity drover.Severity, subject string) {
	a.watched.mu.Lock()
	defer a.watched.mu.Unlock()
	delete(a.watched.reported, conditionKey{Code: code, Severity: severity, Subject: subject})
}

// noteKey keeps the condition of a key that cannot be had: err is how the last attempt to get it ended.
func (a *Agent) noteKey(key drover.KeyID, err error) {
	if err != nil {
		a.reportCondition(drover.KeyMissing, drover.SeverityCritical, string(key), err.Error())
		return
	}
	a.withdrawCondition(drover.KeyMissing, drover.SeverityCritical, string(key))
}
