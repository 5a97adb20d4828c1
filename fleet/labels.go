package fleet

import (
	"context"
	"maps"

	"drover"
)

// maxLabels bounds the metadata of an app or a machine, maxLabelKey its keys and maxLabel its values, in bytes.
const (
	maxLabels   = 200
	maxLabelKey = 253
	maxLabel    = 4096
)

// setLabel changes one entry of metadata; an empty value removes it.
func setLabel(metadata map[string]string, key, value string) (map[string]string, error) {
	if key == "" || len(key) > maxLabelKey {
		return nil, drover.Errorf(drover.Invalid, "key %.60q has %d bytes; expected 1 to %d", key, len(key), maxLabelKey).WithField("key")
	}
	if len(value) > maxLabel {
		return nil, drover.Errorf(drover.Invalid, "value: that of %.60q has %d bytes; expected %d at most", key, len(value), maxLabel).WithField("value")
	}
	if e := drover.CheckLabel(key, value); e != nil {
		return nil, e.WithField("value")
	}
	changed := maps.Clone(metadata)
	if changed == nil {
		changed = map[string]string{}
	}
	if value == "" {
		delete(changed, key)
	} else {
		changed[key] = value
	}
	if len(changed) > maxLabels {
		return nil, drover.Errorf(drover.Exhausted, "%d labels are too many: at most %d", len(changed), maxLabels).WithField("key")
	}
	return changed, nil
}

// SetMachineLabel changes one entry of a machine's metadata; an empty value removes it. The machine is not started again for it: its instance
// stays the same.
func (f *Fleet) SetMachineLabel(ctx context.Context, app drover.AppName, id drover.MachineID, key, value string) (MachineView, error) {
	if err := f.await(ctx); err != nil {
		return MachineView{}, err
	}
	err := f.change(ctx, app, id, func(m *drover.Machine) (err error) {
		m.Config.Metadata, err = setLabel(m.Config.Metadata, key, value)
		return err
	})
	return f.told(ctx, app, id, err)
}

// SetAppLabel changes one entry of an app's metadata; an empty value removes it.
func (f *Fleet) SetAppLabel(ctx context.Context, name drover.AppName, key, value string) (drover.App, error) {
	if err := f.await(ctx); err != nil {
		return drover.App{}, err
	}
	return f.changeApp(ctx, name, func(app *drover.App) (_ bool, err error) {
		app.Metadata, err = setLabel(app.Metadata, key, value)
		return true, err
	})
}
