package fleet

import (
	"context"
	"slices"

	"drover"
)

// imageHosts is how many hosts are asked for an image before it is said that none answers.
const imageHosts = 3

// ResolveImage looks an image up, as a machine's would be: by a host, which has the way to the registry. The first host that answers counts.
func (f *Fleet) ResolveImage(ctx context.Context, image string) (drover.ResolvedImage, error) {
	if err := f.await(ctx); err != nil {
		return drover.ResolvedImage{}, err
	}
	var last error = drover.Errorf(drover.Unavailable, "image %q cannot be looked up: no host answers", image).WithHint("'drover host list' shows the hosts")
	hosts := f.answeringWorkers()
	for _, host := range hosts[:min(imageHosts, len(hosts))] {
		var found drover.ResolvedImage
		err := f.order(ctx, f.timing.Resolve, host, drover.OrderResolve, drover.ResolveRequest{Image: image}, &found)
		if !drover.Is(err, drover.Unavailable) {
			return found, err
		}
		last = err
	}
	return drover.ResolvedImage{}, last
}

// answeringWorkers lists the hosts that run machines and answer, those first that nothing closes.
func (f *Fleet) answeringWorkers() []drover.HostID {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	var open, closed []drover.HostID
	for id := range f.state.hosts.items {
		info, ok := f.hostLocked(drover.HostID(id))
		switch {
		case !ok || !isWorker(info) || info.Status != drover.HostOK:
		case info.Mark != nil:
			closed = append(closed, info.ID)
		default:
			open = append(open, info.ID)
		}
	}
	slices.Sort(open)
	slices.Sort(closed)
	return append(open, closed...)
}

// AppOfVolume tells which app a volume belongs to.
func (f *Fleet) AppOfVolume(ctx context.Context, id drover.VolumeID) (drover.AppName, error) {
	if err := f.await(ctx); err != nil {
		return "", err
	}
	v, _, ok := f.state.volumes.seen(string(id))
	if !ok || v.State == drover.VolumeDestroyed {
		return "", noVolume("", id)
	}
	return v.App, nil
}
