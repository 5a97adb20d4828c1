package api

import (
	"time"

	"drover/apiv1"
)

// Bounds of how long a hydration may stand still before that is a condition.
const (
	minStall = time.Second
	maxStall = 24 * time.Hour
)

func (h *handler) setStorage(c *call) (any, error) {
	var req apiv1.StorageRequest
	if err := readStrict(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	if req.HydrationLimit == nil && req.StallAfter == nil {
		return nil, badField("hydration_limit", "and stall_after are both missing; expected one of them at least")
	}
	if req.HydrationLimit != nil {
		if err := checkRate("hydration_limit", *req.HydrationLimit); err != nil {
			return nil, err
		}
	}
	if s := req.StallAfter; s != nil && *s != 0 && (time.Duration(*s) < minStall || time.Duration(*s) > maxStall) {
		return nil, badField("stall_after", "is %s; expected %s to %s, or 0 for the default", time.Duration(*s), minStall, maxStall)
	}
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	host, err := h.backend.Host(c.ctx(), id)
	if err != nil {
		return nil, err
	}
	settings := host.Storage
	if req.HydrationLimit != nil {
		settings.HydrationLimit = *req.HydrationLimit
	}
	if req.StallAfter != nil {
		settings.StallAfter = *req.StallAfter
	}
	return h.backend.SetStorage(c.ctx(), id, settings)
}
