package api

import (
	"net/http"
	"slices"
	"time"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// guarded are the operations that a lease keeps others from. What only reads is not among them, nor what clients do without a nonce
// on machines that they have leased: metadata, signals, exec.
var guarded = []string{"Machines_update", "Machines_delete", "Machines_start", "Machines_stop", "Machines_restart", "Machines_suspend", "Machines_resume",
	"Machines_cordon", "Machines_uncordon"}

// guardLease refuses a guarded operation while somebody else has the machine's lease.
func (h *handler) guardLease(c *call) error {
	if !slices.Contains(guarded, c.route.id) {
		return nil
	}
	id, err := machineID(c)
	if err != nil {
		return err
	}
	return machineGone(c, h.backend.GuardMachine(c.ctx(), c.app.Name, id, nonce(c)))
}

func nonce(c *call) string { return c.r.Header.Get(apiv1.LeaseNonceHeader) }

func leaseForm(l drover.MachineLease) apiv1.LeaseResponse {
	lease := apiv1.Lease{Nonce: l.Nonce, ExpiresAt: l.ExpiresAt.Add(time.Second - 1).Unix(), Owner: l.Owner, Description: l.Description, Version: l.Version}
	return apiv1.LeaseResponse{Status: "success", Data: lease, Lease: lease}
}

func (h *handler) showLease(c *call) (any, error) {
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	l, err := h.backend.MachineLease(c.ctx(), c.app.Name, view.Machine.ID)
	if err != nil {
		return nil, err
	}
	return leaseForm(l), nil
}

func (h *handler) takeLease(c *call) (any, error) {
	var req apiv1.LeaseRequest
	if err := readBody(c.w, c.r, &req, true); err != nil {
		return nil, err
	}
	most := int64(fleet.LeaseMost / time.Second)
	ttl, err := queryInt(c.r.URL.Query(), "ttl", int64(req.TTL), 1, most)
	if err != nil {
		return nil, err
	}
	if ttl < 0 || ttl > most {
		return nil, badField("ttl", "is %d; expected seconds from 1 to %d", ttl, most)
	}
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	l, err := h.backend.LeaseMachine(c.ctx(), fleet.LeaseMachine{App: c.app.Name, Machine: view.Machine.ID, Nonce: nonce(c),
		TTL: time.Duration(ttl) * time.Second, Owner: c.principal.Name, Description: req.Description})
	if err != nil {
		return nil, leaseRefused(err)
	}
	return leaseForm(l), nil
}

func (h *handler) releaseLease(c *call) (any, error) {
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	return apiv1.OK{OK: true}, leaseRefused(h.backend.ReleaseMachine(c.ctx(), c.app.Name, view.Machine.ID, nonce(c)))
}

// leaseRefused gives the refusal of a lease that somebody else has the word that answers about leases begin with.
func leaseRefused(err error) error {
	if !drover.Is(err, drover.Conflict) {
		return err
	}
	return &httpError{cause: drover.AsError(err), status: http.StatusConflict, word: apiv1.StatusError}
}

// leaseTTL reads how long a machine that is created or updated is to be leased.
func leaseTTL(seconds int) (time.Duration, error) {
	if most := int(fleet.LeaseMost / time.Second); seconds < 0 || seconds > most {
		return 0, badField("lease_ttl", "is %d; expected seconds from 0, which means no lease, to %d", seconds, most)
	}
	return time.Duration(seconds) * time.Second, nil
}
