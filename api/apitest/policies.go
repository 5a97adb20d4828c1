package apitest

import (
	"context"
	"slices"

	"drover"
)

// SetPolicy checks nothing but that there are rules.
func (b *Backend) SetPolicy(_ context.Context, app drover.AppName, p drover.NetworkPolicy) (drover.NetworkPolicy, error) {
	if err := b.begin("SetPolicy"); err != nil {
		return drover.NetworkPolicy{}, err
	}
	defer b.mu.Unlock()
	if len(p.Rules) == 0 {
		return drover.NetworkPolicy{}, drover.Errorf(drover.Invalid, "rules: there are 0 rules").WithField("rules")
	}
	p.ID, p.CreatedAt, p.UpdatedAt = "np_"+p.Name, b.Now(), b.Now()
	if b.policies == nil {
		b.policies = map[drover.AppName][]drover.NetworkPolicy{}
	}
	if i := b.policyLocked(app, p.Name); i >= 0 {
		b.policies[app][i] = p
	} else {
		b.policies[app] = append(b.policies[app], p)
	}
	return p, nil
}

func (b *Backend) policyLocked(app drover.AppName, id string) int {
	return slices.IndexFunc(b.policies[app], func(p drover.NetworkPolicy) bool { return p.ID == id || p.Name == id })
}

// Policies lists them.
func (b *Backend) Policies(_ context.Context, app drover.AppName) ([]drover.NetworkPolicy, error) {
	if err := b.begin("Policies"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	return append([]drover.NetworkPolicy{}, b.policies[app]...), nil
}

// Policy finds one.
func (b *Backend) Policy(_ context.Context, app drover.AppName, id string) (drover.NetworkPolicy, error) {
	if err := b.begin("Policy"); err != nil {
		return drover.NetworkPolicy{}, err
	}
	defer b.mu.Unlock()
	i := b.policyLocked(app, id)
	if i < 0 {
		return drover.NetworkPolicy{}, drover.Errorf(drover.NotFound, "app %q has no network policy %q", app, id)
	}
	return b.policies[app][i], nil
}

// DeletePolicy forgets one.
func (b *Backend) DeletePolicy(_ context.Context, app drover.AppName, id string) (drover.NetworkPolicy, error) {
	if err := b.begin("DeletePolicy"); err != nil {
		return drover.NetworkPolicy{}, err
	}
	defer b.mu.Unlock()
	i := b.policyLocked(app, id)
	if i < 0 {
		return drover.NetworkPolicy{}, drover.Errorf(drover.NotFound, "app %q has no network policy %q", app, id)
	}
	gone := b.policies[app][i]
	b.policies[app] = slices.Delete(b.policies[app], i, i+1)
	return gone, nil
}
