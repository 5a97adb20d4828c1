package host

import (
	"drover"
)

// promotable returns the layer with the last whole step of a standby of this host.
func (a *Agent) promotable(src drover.RecoverySource) (drover.LayerID, error) {
	return "", drover.Errorf(drover.NotFound, "host %q has no standby %q of volume %q", a.cfg.ID, src.Standby, src.Volume)
}
