package api

import (
	"strings"

	"drover"
)

// localImage reports whether an image is named by a path on the hosts.
func localImage(image string) bool {
	form, _, _ := strings.Cut(strings.TrimSpace(image), ":")
	return form == "oci" || form == "tar"
}

// mayNameImage refuses an image that is named by a path to those who do not run the hosts: what a path leads to, and whether it leads anywhere, is not
// theirs to know. One that a machine of the app has was named by an operator, and may be named again, so that updates and deploys of it go on.
func (h *handler) mayNameImage(c *call, app drover.AppName, field, image string) error {
	operates := Permission{Operators: true, Need: h.guard.Need(c.r, drover.ActOperate, "", "", true)}
	if !localImage(image) || h.guard.Allow(c.principal, operates) == nil {
		return nil
	}
	machines, err := h.backend.Machines(c.ctx(), app)
	if err != nil {
		return err
	}
	for _, v := range machines {
		if v.Machine.Config.Image == image {
			return nil
		}
	}
	return drover.Errorf(drover.Denied, "%s: only operators name an image by a path on the hosts", field).WithField(field).
		WithHint("push the image to a registry, and name it by that")
}
