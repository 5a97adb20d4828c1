package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"drover"
	"drover/plan"
)

// CreateStandby asks for a copy of a volume on another host that follows it. Host and Region limit the choice; Every 0 is the default.
type CreateStandby struct {
	App    drover.AppName
	Volume drover.VolumeID
	Host   drover.HostID
	Region drover.Region
	Every  drover.Duration
}

// maxStandbys bounds the standbys of one volume: each costs a layer under it, and a copy of what is written.
const maxStandbys = 3

// CreateStandby makes the record and answers: the first copy, and all that follow, are made by themselves.
func (f *Fleet) CreateStandby(ctx context.Context, req CreateStandby) (drover.Standby, error) {
	if err := f.await(ctx); err != nil {
		return drover.Standby{}, err
	}
	every := orDefault(req.Every, drover.DefaultStandbyEvery)
	if every < drover.MinStandbyEvery || every > drover.MaxStandbyEvery {
		return drover.Standby{}, drover.Errorf(drover.Invalid, "every: %v is out of range: %v to %v", time.Duration(every),
			time.Duration(drover.MinStandbyEvery), time.Duration(drover.MaxStandbyEvery)).WithField("every")
	}
	v, err := f.readVolume(ctx, req.App, req.Volume)
	if err != nil {
		return drover.Standby{}, err
	}
	if v.State != drover.VolumeCreated && v.State != drover.VolumeHydrating {
		return drover.Standby{}, inState(v)
	}
	at, err := f.hostOfVolume(ctx, v)
	if err != nil {
		return drover.Standby{}, err
	}
	mine := f.standbysOf(v.ID)
	for _, s := range mine {
		if s.Host == req.Host && s.State != drover.StandbyDeleting {
			return drover.Standby{}, drover.Errorf(drover.Exists, "volume %q has the standby %s on host %q already", v.ID, s.ID, s.Host).WithField("host")
		}
	}
	switch {
	case len(mine) >= maxStandbys:
		return drover.Standby{}, drover.Errorf(drover.Exhausted, "volume %q has %d standbys, which is as many as it may have", v.ID, len(mine))
	case req.Host == at:
		return drover.Standby{}, drover.Errorf(drover.Invalid, "host: volume %q is on host %q itself: a standby there would die with it", v.ID, at).WithField("host")
	}
	if req.Host != "" {
		switch info, err := f.Host(ctx, req.Host); {
		case err != nil:
			return drover.Standby{}, err
		case !isWorker(info):
			return drover.Standby{}, f.noHost(req.Host, "host")
		}
	}
	host, err := f.standbyHost(ctx, v, at, req.Host, req.Region)
	if err != nil {
		return drover.Standby{}, err
	}
	s := drover.Standby{ID: drover.NewStandbyID(), Volume: v.ID, App: v.App, Host: host, Region: req.Region, Every: every,
		State: drover.StandbyFilling, CreatedAt: f.now().UTC()}
	if _, err := f.state.standbys.create(ctx, string(s.ID), s); err != nil {
		return s, err
	}
	f.log.Info("standby created", "standby", s.ID, "volume", v.ID, "host", host)
	return f.lagging(s), nil
}

// standbyHost chooses where a standby goes: not with the volume, not with another standby of it, and to no host that is closed.
func (f *Fleet) standbyHost(ctx context.Context, v drover.Volume, at, only drover.HostID, region drover.Region) (drover.HostID, error) {
	exclude := map[drover.HostID]string{at: "has the volume itself"}
	for _, s := range f.standbysOf(v.ID) {
		exclude[s.Host] = "has a standby of it"
	}
	for _, h := range f.hostList() {
		if h.Mark != nil {
			exclude[h.ID] = "is closed for new machines"
		}
	}
	return f.choose(ctx, plan.Request{What: fmt.Sprintf("a standby of volume %q", v.ID), Region: region, Volume: true}, only,
		drover.OfferRequest{Provision: v.Size, Dedication: f.dedicationOf(at)}, plan.Options{Exclude: exclude, SameApp: f.volumeSpread(v.App)})
}

// standbysOf returns the standbys of a volume, oldest first.
func (f *Fleet) standbysOf(id drover.VolumeID) []drover.Standby {
	return f.standbysThat(func(s drover.Standby) bool { return s.Volume == id })
}

func (f *Fleet) standbysThat(want func(drover.Standby) bool) []drover.Standby {
	list := []drover.Standby{}
	for _, i := range f.state.standbys.all() {
		if want(i.value) {
			list = append(list, f.lagging(i.value))
		}
	}
	slices.SortFunc(list, func(a, b drover.Standby) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// lagging fills in how old the last whole step is.
func (f *Fleet) lagging(s drover.Standby) drover.Standby {
	s.LagSeconds = -1
	if s.Complete > 0 {
		s.LagSeconds = int64(max(f.now().Sub(s.CompleteAt), 0) / time.Second)
	}
	return s
}

// Standbys lists the standbys of an app's volume, or of all its volumes when it is empty, oldest first.
func (f *Fleet) Standbys(ctx context.Context, app drover.AppName, volume drover.VolumeID) ([]drover.Standby, error) {
	if _, err := f.App(ctx, app); err != nil {
		return nil, err
	}
	if volume != "" {
		if _, err := f.readVolume(ctx, app, volume); err != nil {
			return nil, err
		}
	}
	return f.standbysThat(func(s drover.Standby) bool { return s.App == app && (volume == "" || s.Volume == volume) }), nil
}

// Standby returns one.
func (f *Fleet) Standby(ctx context.Context, app drover.AppName, id drover.StandbyID) (drover.Standby, error) {
	if err := f.await(ctx); err != nil {
		return drover.Standby{}, err
	}
	s, _, ok := f.state.standbys.seen(string(id))
	if !ok || app != "" && s.App != app {
		return s, noStandby(id)
	}
	return f.lagging(s), nil
}

func noStandby(id drover.StandbyID) *drover.Error {
	return drover.Errorf(drover.NotFound, "standby %q does not exist", id).WithHint("see `drover volume standby list`")
}

// DeleteStandby begins to remove a standby, and answers when that is durable.
func (f *Fleet) DeleteStandby(ctx context.Context, app drover.AppName, id drover.StandbyID) (drover.Standby, error) {
	if _, err := f.Standby(ctx, app, id); err != nil {
		return drover.Standby{}, err
	}
	s, err := f.changeStandby(ctx, id, func(s *drover.Standby) { s.State = drover.StandbyDeleting })
	if drover.Is(err, drover.NotFound) {
		return s, noStandby(id)
	}
	return f.lagging(s), err
}

// changeStandby changes a standby's record by compare-and-set, until it worked.
func (f *Fleet) changeStandby(ctx context.Context, id drover.StandbyID, change func(*drover.Standby)) (drover.Standby, error) {
	for range casTries {
		s, rev, err := f.state.standbys.get(ctx, string(id))
		if err != nil {
			return s, err
		}
		change(&s)
		if _, err = f.state.standbys.update(ctx, string(id), s, rev); !drover.Is(err, drover.Conflict) {
			return s, err
		}
	}
	return drover.Standby{}, tooBusy("standby", string(id))
}

// lateSteps is how many intervals, and lateMargin how much time beyond them, a standby may be behind until that is a condition.
const (
	lateSteps  = 5
	lateMargin = 2 * time.Minute
)

// standbyConditionsLocked tells which standbys of a volume do not keep up.
func (f *Fleet) standbyConditionsLocked(v drover.Volume) []drover.Condition {
	var out []drover.Condition
	for _, i := range f.state.standbys.items {
		s := i.value
		at := s.CompleteAt
		if s.Complete == 0 {
			at = s.CreatedAt
		}
		late := lateSteps*time.Duration(s.Every) + lateMargin
		if s.Volume != v.ID || s.State == drover.StandbyDeleting || f.now().Sub(at) <= late {
			continue
		}
		why := "no step of it has come to an end since"
		if s.Problem != nil {
			why = s.Problem.Text
		}
		out = append(out, drover.Condition{Code: drover.StandbyLagging, Severity: drover.SeverityWarning, Subject: string(v.ID),
			Text: fmt.Sprintf("standby %s on host %s is what the volume was at %s: %s", s.ID, s.Host, at.UTC().Format(time.RFC3339), why), Since: at.Add(late)})
	}
	slices.SortFunc(out, func(a, b drover.Condition) int { return cmp.Compare(a.Text, b.Text) })
	return out
}
