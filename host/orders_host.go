package host

import (
	"context"

	"drover"
)

// offer says whether the host could take a machine. It promises nothing.
func (a *Agent) offer(_ context.Context, req drover.OfferRequest) (drover.Offer, error) {
	a.capacity.Lock()
	defer a.capacity.Unlock()
	c, err := a.wholeRoom(req.Machine, req.Volumes...)
	if err != nil {
		return drover.Offer{}, err
	}
	o := drover.Offer{Host: a.cfg.ID, Region: a.cfg.Region, MemoryFree: c.memoryFree(), DiskFree: c.diskFree, Disk: c.diskTotal,
		DiskProvisioned: c.provisioned, Machines: c.machines}
	size := drover.Guest{CPUs: req.CPUs, MemoryMB: req.MemoryMB, CPUKind: req.CPUKind, HostDedicationID: req.Dedication}
	o.CPUsFree = float64(max(c.cpuTotal-c.cpuUsed, 0)) / cpuUnit
	for _, err := range c.refusals(a.cfg, size, req.Disk) {
		o.Reasons = append(o.Reasons, err.Text)
	}
	for _, err := range c.provisionRefusals(a.cfg, req.Provision) {
		o.Reasons = append(o.Reasons, err.Text)
	}
	if len(o.Reasons) == 0 {
		o.Fits = max(1, c.fits(a.cfg, size, req.Provision))
	}
	return o, nil
}

func (a *Agent) resolve(ctx context.Context, req drover.ResolveRequest) (drover.ResolvedImage, error) {
	return a.cfg.Images.Resolve(ctx, req.Image)
}

func (a *Agent) infoOrder(context.Context, drover.Empty) (drover.HostInfo, error) { return a.info() }

func (a *Agent) layers(ctx context.Context, _ drover.Empty) ([]drover.LayerStatus, error) {
	return a.cfg.Storage.Layers(ctx)
}

// info describes the host.
func (a *Agent) info() (drover.HostInfo, error) {
	a.capacity.Lock()
	c, err := a.wholeRoom("")
	a.capacity.Unlock()
	if err != nil {
		return drover.HostInfo{}, err
	}
	return drover.HostInfo{ID: a.cfg.ID, Region: a.cfg.Region, Roles: a.cfg.Roles, Address: a.cfg.Address,
		StorageAddress: a.cfg.StorageAddress, RouteAddress: a.routeAddress(), Mesh: a.meshNow().Mesh, RoutesDigest: a.meshNow().RoutesDigest, Accel: a.cfg.Accel, AccelReason: a.cfg.AccelReason, VMM: a.cfg.VMMName,
		Version: a.cfg.Version, CPUs: a.cfg.CPUs, CPUsTotal: float64(c.cpuTotal) / cpuUnit, CPUsUsed: float64(c.cpuUsed) / cpuUnit,
		Dedication: a.cfg.Dedication, Memory: a.cfg.Memory, MemoryUsed: c.memoryUsed, Disk: c.diskTotal,
		DiskUsed: c.diskTotal - c.diskRaw, DiskProvisioned: c.provisioned, Machines: c.machines, StartedAt: a.started,
		Conditions: a.conditions(), Storage: a.storageNow(), Observations: a.observations(), CPU: a.cfg.GuestCPU, Platform: a.cfg.Platform}, nil
}
