package api

import (
	"cmp"
	"slices"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

func (h *handler) listHosts(c *call) (any, error) {
	hosts, err := h.backend.Hosts(c.ctx())
	if err != nil {
		return nil, err
	}
	slices.SortFunc(hosts, func(a, b drover.HostInfo) int { return cmp.Compare(a.ID, b.ID) })
	forms := []drover.HostInfo{}
	for _, host := range hosts {
		forms = append(forms, hostForm(host))
	}
	return forms, nil
}

func (h *handler) showHost(c *call) (any, error) {
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	host, err := h.backend.Host(c.ctx(), id)
	if err != nil {
		return nil, err
	}
	return hostForm(host), nil
}

func (h *handler) hostLayers(c *call) (any, error) {
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	layers, err := h.backend.HostLayers(c.ctx(), id)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(layers, func(a, b drover.LayerStatus) int { return cmp.Compare(a.ID, b.ID) })
	if layers == nil {
		layers = []drover.LayerStatus{}
	}
	return layers, nil
}

func (h *handler) hostMachines(c *call) (any, error) {
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	views, err := h.backend.HostMachines(c.ctx(), id)
	if err != nil {
		return nil, err
	}
	return machineForms(views), nil
}

func (h *handler) listMigrations(c *call) (any, error) {
	machine := c.r.URL.Query().Get("machine")
	if machine != "" && !drover.ValidMachineID(machine) {
		return nil, badField("machine", "is %q; expected a machine ID, which has 14 digits from 0 to f", machine)
	}
	migrations, err := h.backend.Migrations(c.ctx())
	if err != nil {
		return nil, err
	}
	slices.SortFunc(migrations, func(a, b drover.Migration) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	forms := []apiv1.Migration{}
	for _, m := range migrations {
		if machine == "" || machine == string(m.Machine) {
			forms = append(forms, migrationForm(m, h.now()))
		}
	}
	return forms, nil
}

// moveOf reads the request of a move.
func (h *handler) moveOf(c *call) (fleet.Move, error) {
	var req apiv1.MoveRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return fleet.Move{}, err
	}
	if !drover.ValidMachineID(req.Machine) {
		return fleet.Move{}, badField("machine", "is %q; expected a machine ID, which has 14 digits from 0 to f", req.Machine)
	}
	if err := needName("target", req.Target, true); err != nil {
		return fleet.Move{}, err
	}
	return fleet.Move{Machine: drover.MachineID(req.Machine), Target: drover.HostID(req.Target), Actor: c.principal.Name, Options: req.MoveOptions}, nil
}

func (h *handler) createMigration(c *call) (any, error) {
	req, err := h.moveOf(c)
	if err != nil {
		return nil, err
	}
	m, err := h.backend.MoveMachine(c.ctx(), req)
	if err != nil {
		return nil, err
	}
	return migrationForm(m, h.now()), nil
}

func (h *handler) checkMigration(c *call) (any, error) {
	req, err := h.moveOf(c)
	if err != nil {
		return nil, err
	}
	check, err := h.backend.CheckMove(c.ctx(), req)
	if err != nil {
		return nil, err
	}
	if check.Findings == nil {
		check.Findings = []drover.MoveFinding{}
	}
	return check, nil
}

func (h *handler) undoMigration(c *call) (any, error) {
	id, err := migrationID(c)
	if err != nil {
		return nil, err
	}
	var req apiv1.UndoRequest
	if err := readBody(c.w, c.r, &req, true); err != nil {
		return nil, err
	}
	undo, err := h.backend.UndoMigration(c.ctx(), fleet.Undo{Migration: id, Actor: c.principal.Name, Confirm: req.Confirm})
	if err != nil {
		return nil, err
	}
	form := apiv1.Undo{MoveUndo: undo}
	if undo.Migration != nil {
		m := migrationForm(*undo.Migration, h.now())
		form.Migration = &m
	}
	return form, nil
}

func (h *handler) writeOffSource(c *call) (any, error) {
	id, err := migrationID(c)
	if err != nil {
		return nil, err
	}
	var req apiv1.WriteOffRequest
	if err := readBody(c.w, c.r, &req, true); err != nil {
		return nil, err
	}
	return h.backend.WriteOffSource(c.ctx(), fleet.WriteOff{Migration: id, Actor: c.principal.Name, Confirm: req.Confirm, Reason: req.Reason})
}

func (h *handler) showMigration(c *call) (any, error) {
	id, err := migrationID(c)
	if err != nil {
		return nil, err
	}
	m, err := h.backend.Migration(c.ctx(), id)
	if err != nil {
		return nil, err
	}
	return migrationForm(m, h.now()), nil
}

func (h *handler) abortMigration(c *call) (any, error) {
	id, err := migrationID(c)
	if err != nil {
		return nil, err
	}
	m, err := h.backend.AbortMigration(c.ctx(), id)
	if err != nil {
		return nil, err
	}
	return migrationForm(m, h.now()), nil
}
