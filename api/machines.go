package api

import (
	"cmp"
	"slices"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// machineForms converts the views, oldest machine first.
func machineForms(views []fleet.MachineView) []apiv1.Machine {
	slices.SortFunc(views, func(a, b fleet.MachineView) int {
		return cmp.Or(a.Machine.CreatedAt.Compare(b.Machine.CreatedAt), cmp.Compare(a.Machine.ID, b.Machine.ID))
	})
	forms := []apiv1.Machine{}
	for _, v := range views {
		forms = append(forms, machineForm(v))
	}
	return forms
}

func (h *handler) createMachine(c *call) (any, error) {
	var req apiv1.CreateMachineRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	for _, n := range []struct{ field, value string }{{"name", req.Name}, {"host", req.Host}} {
		if err := needName(n.field, n.value, true); err != nil {
			return nil, err
		}
	}
	ttl, err := leaseTTL(req.LeaseTTL)
	if err != nil {
		return nil, err
	}
	if err := h.mayNameImage(c, c.app.Name, "config.image", req.Config.Image); err != nil {
		return nil, err
	}
	once, err := onceOf(c, req)
	if err != nil {
		return nil, err
	}
	region, fallback, err := regionList("region", req.Region)
	if err != nil {
		return nil, err
	}
	view, err := h.backend.CreateMachine(c.ctx(), fleet.CreateMachine{
		App:         c.app.Name,
		Name:        req.Name,
		Region:      region,
		Fallback:    fallback,
		Host:        drover.HostID(req.Host),
		Config:      req.Config,
		SkipLaunch:  req.SkipLaunch,
		Cordoned:    req.SkipServiceRegistration,
		LeaseTTL:    ttl,
		Owner:       c.principal.Name,
		Once:        once,
		SecretsWish: fleet.SecretsWish{MinSecretsVersion: req.MinSecretsVersion, SkipSecrets: req.SkipSecrets},
	})
	if err != nil {
		return nil, onceRefused(err)
	}
	return machineForm(view), nil
}

func (h *handler) showMachine(c *call) (any, error) {
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	return machineForm(view), nil
}

// machine reads the machine that the path names.
func (h *handler) machine(c *call) (fleet.MachineView, error) {
	id, err := machineID(c)
	if err != nil {
		return fleet.MachineView{}, err
	}
	view, err := h.backend.Machine(c.ctx(), c.app.Name, id)
	return view, machineGone(c, err)
}

func (h *handler) updateMachine(c *call) (any, error) {
	var req apiv1.UpdateMachineRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	if err := needInstance("current_version", req.CurrentVersion); err != nil {
		return nil, err
	}
	ttl, err := leaseTTL(req.LeaseTTL)
	if err != nil {
		return nil, err
	}
	now, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	if err := needSame("name", req.Name, now.Machine.Name); err != nil {
		return nil, err
	}
	if err := needSame("region", req.Region, string(now.Machine.Region)); err != nil {
		return nil, err
	}
	if err := h.mayNameImage(c, c.app.Name, "config.image", req.Config.Image); err != nil {
		return nil, err
	}
	view, err := h.backend.UpdateMachine(c.ctx(), fleet.UpdateMachine{
		App:            c.app.Name,
		Machine:        now.Machine.ID,
		Config:         req.Config,
		CurrentVersion: drover.InstanceID(req.CurrentVersion),
		SkipLaunch:     req.SkipLaunch,
		Cordon:         req.SkipServiceRegistration,
		LeaseTTL:       ttl,
		Nonce:          nonce(c),
		Owner:          c.principal.Name,
		SecretsWish:    fleet.SecretsWish{MinSecretsVersion: req.MinSecretsVersion, SkipSecrets: req.SkipSecrets},
	})
	if err != nil {
		return nil, err
	}
	return machineForm(view), nil
}

// needSame refuses to change what stays for a machine's life.
func needSame(field, asked, now string) error {
	if asked == "" || asked == now {
		return nil
	}
	return drover.Errorf(drover.Invalid, "%s is %q, and the machine's is %q, which an update cannot change", field, asked, now).WithField(field)
}

func (h *handler) destroyMachine(c *call) (any, error) {
	q := c.r.URL.Query()
	force, err := queryBool(q, "force")
	if err != nil {
		return nil, err
	}
	kill, err := queryBool(q, "kill")
	if err != nil {
		return nil, err
	}
	id, err := machineID(c)
	if err != nil {
		return nil, err
	}
	return apiv1.OK{OK: true}, machineGone(c, h.backend.DestroyMachine(c.ctx(), c.app.Name, id, force || kill))
}

func (h *handler) listEvents(c *call) (any, error) {
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	return eventForms(view.Status.Events), nil
}
