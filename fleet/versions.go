package fleet

import (
	"context"
	"slices"
	"time"

	"drover"
)

// maxVersions bounds how many configs of a machine are kept besides the one that it has.
const maxVersions = 32

// configuredAt is when a machine got the config that it has.
func configuredAt(m drover.Machine) time.Time {
	if m.ConfiguredAt.IsZero() {
		return m.CreatedAt
	}
	return m.ConfiguredAt
}

// keepVersion stores the config that is about to be replaced, before it is. What a crash leaves twice is told once: an instance has one config.
func (f *Fleet) keepVersion(ctx context.Context, m drover.Machine, now time.Time) error {
	_, err := f.state.versions.Put(ctx, string(m.ID), drover.MachineVersion{Machine: m.ID, Instance: m.Instance, Config: m.Config, Image: m.Image,
		CreatedAt: configuredAt(m), ReplacedAt: now})
	return err
}

// Versions lists the configs that a machine has and had, newest first.
func (f *Fleet) Versions(ctx context.Context, app drover.AppName, id drover.MachineID) ([]drover.MachineVersion, error) {
	v, err := f.Machine(ctx, app, id)
	if err != nil {
		return nil, err
	}
	old, err := f.state.versions.History(ctx, string(id))
	if err != nil {
		return nil, err
	}
	m := v.Machine
	list := []drover.MachineVersion{{Machine: id, Instance: m.Instance, Config: m.Config, Image: m.Image, CreatedAt: configuredAt(m)}}
	for _, o := range slices.Backward(old) {
		if !slices.ContainsFunc(list, func(v drover.MachineVersion) bool { return v.Instance == o.Instance }) {
			list = append(list, o)
		}
	}
	return list, nil
}
