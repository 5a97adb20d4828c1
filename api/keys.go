package api

func (h *handler) listKeys(c *call) (any, error) { return h.backend.Keyring(c.ctx()) }

func (h *handler) rotateKeys(c *call) (any, error) { return h.backend.RotateKeys(c.ctx()) }
