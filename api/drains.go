package api

import (
	"drover"
	"drover/apiv1"
	"drover/fleet"
)

func drainForm(h *handler, d drover.Drain) apiv1.Drain {
	if d.Items == nil {
		d.Items = []drover.DrainItem{}
	}
	return apiv1.Drain{Drain: d, AsOf: h.now().UTC()}
}

// answerDrain is the answer of everything that changes one drain.
func (h *handler) answerDrain(d drover.Drain, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return drainForm(h, d), nil
}

func drainID(c *call) (drover.DrainID, error) {
	id := c.r.PathValue("drain_id")
	if !hexDigits(id, "drn_", 16) {
		return "", drover.Errorf(drover.NotFound, "drain not found: %q is not a drain ID, which is \"drn_\" and 16 digits from 0 to f", id)
	}
	return drover.DrainID(id), nil
}

func (h *handler) listDrains(c *call) (any, error) {
	host := c.r.URL.Query().Get("host")
	if err := needName("host", host, true); err != nil {
		return nil, err
	}
	drains, err := h.backend.Drains(c.ctx())
	if err != nil {
		return nil, err
	}
	forms := []apiv1.Drain{}
	for _, d := range drains {
		if host == "" || host == string(d.Host) {
			forms = append(forms, drainForm(h, d))
		}
	}
	return forms, nil
}

// drainRequest reads and checks what a drain, or its plan, is asked with.
func drainRequest(c *call) (fleet.StartDrain, error) {
	var req apiv1.DrainRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return fleet.StartDrain{}, err
	}
	if err := needName("host", req.Host, false); err != nil {
		return fleet.StartDrain{}, err
	}
	return fleet.StartDrain{Host: drover.HostID(req.Host), Actor: c.principal.Name, Reason: req.Reason, Options: req.DrainOptions}, nil
}

func (h *handler) createDrain(c *call) (any, error) {
	req, err := drainRequest(c)
	if err != nil {
		return nil, err
	}
	return h.answerDrain(h.backend.CreateDrain(c.ctx(), req))
}

func (h *handler) planDrain(c *call) (any, error) {
	req, err := drainRequest(c)
	if err != nil {
		return nil, err
	}
	return h.answerDrain(h.backend.PlanDrain(c.ctx(), req))
}

func (h *handler) returnDrain(c *call) (any, error) {
	id, err := drainID(c)
	if err != nil {
		return nil, err
	}
	var req apiv1.ReturnRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	start := fleet.StartDrain{Returns: id, Actor: c.principal.Name, Reason: req.Reason, Options: req.DrainOptions}
	if req.DryRun {
		return h.answerDrain(h.backend.PlanDrain(c.ctx(), start))
	}
	return h.answerDrain(h.backend.CreateDrain(c.ctx(), start))
}

func (h *handler) showDrain(c *call) (any, error) {
	id, err := drainID(c)
	if err != nil {
		return nil, err
	}
	return h.answerDrain(h.backend.Drain(c.ctx(), id))
}

func (h *handler) pauseDrain(c *call) (any, error) {
	id, err := drainID(c)
	if err != nil {
		return nil, err
	}
	return h.answerDrain(h.backend.PauseDrain(c.ctx(), id))
}

func (h *handler) resumeDrain(c *call) (any, error) {
	id, err := drainID(c)
	if err != nil {
		return nil, err
	}
	var req apiv1.ResumeDrainRequest
	if err := readBody(c.w, c.r, &req, true); err != nil {
		return nil, err
	}
	return h.answerDrain(h.backend.ResumeDrain(c.ctx(), id, req.Class))
}

func (h *handler) abortDrain(c *call) (any, error) {
	id, err := drainID(c)
	if err != nil {
		return nil, err
	}
	var req apiv1.AbortDrainRequest
	if err := readBody(c.w, c.r, &req, true); err != nil {
		return nil, err
	}
	return h.answerDrain(h.backend.AbortDrain(c.ctx(), id, req.Running, c.principal.Name))
}

func (h *handler) approveMove(c *call) (any, error) {
	id, err := drainID(c)
	if err != nil {
		return nil, err
	}
	var req apiv1.ApproveRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	if !drover.ValidMachineID(req.Machine) {
		return nil, badField("machine", "is %q; expected a machine ID, which has 14 digits from 0 to f", req.Machine)
	}
	return h.answerDrain(h.backend.ApproveMove(c.ctx(), id, drover.MachineID(req.Machine), c.principal.Name))
}

func (h *handler) cordonHost(c *call) (any, error) {
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	var req apiv1.CordonRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	host, err := h.backend.CordonHost(c.ctx(), fleet.Cordon{Host: id, Owner: c.principal.Name, Reason: req.Reason, Suspect: req.Suspect, For: req.For})
	if err != nil {
		return nil, err
	}
	return hostForm(host), nil
}

func (h *handler) uncordonHost(c *call) (any, error) {
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	host, err := h.backend.UncordonHost(c.ctx(), id, c.principal.Name)
	if err != nil {
		return nil, err
	}
	return hostForm(host), nil
}

func (h *handler) checkRegion(c *call) (any, error) {
	region := c.r.PathValue("region")
	if !drover.ValidName(region) {
		return nil, drover.Errorf(drover.NotFound, "region not found: %q", region)
	}
	check, err := h.backend.CheckRegion(c.ctx(), drover.Region(region))
	if err != nil {
		return nil, err
	}
	return check, nil
}

func (h *handler) setAppLabel(c *call) (any, error) {
	var req apiv1.LabelRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	app, err := h.backend.SetAppLabel(c.ctx(), c.app.Name, c.r.PathValue("key"), req.Value)
	if err != nil {
		return nil, err
	}
	return h.appForm(c, app)
}
