package fleet

import (
	"fmt"
	"strings"

	"drover"
)

// Blocks that are known not to hold what was written are never copied, so that a move of their machine does not end: its source stays needed. A move
// is refused for them unless it was asked for all the same, which is right where everything else is to be saved from a dying disk.

// damagedDisk says what is known to be damaged of a disk; empty for nothing.
func damagedDisk(l drover.LayerStatus) string {
	v := l.Verification
	if v == nil || len(v.Damaged) == 0 {
		return ""
	}
	what := "its root disk"
	if strings.HasPrefix(string(l.Disk), "vol_") {
		what = "volume " + string(l.Disk)
	}
	more := ""
	if n := len(v.Damaged); n > 1 {
		more = fmt.Sprintf(", %d places in all", n)
	}
	return fmt.Sprintf("%s is damaged at offset %d%s", what, v.Damaged[0].Offset, more)
}

// lookForDamage refuses a move that would never end, or says that it was asked for all the same.
func (c *preflight) lookForDamage() {
	if c.damage == "" || c.req.undoes != nil {
		return // what was damaged since the switch is one more reason to go back
	}
	text := fmt.Sprintf("%s on host %s: a move copies everything else, and goes on until the machine has overwritten what is damaged; until then it gets I/O errors there",
		c.damage, c.p.Host)
	switch {
	case !c.req.Options.Damaged:
		c.against("damaged", drover.Errorf(drover.Precondition, "%s", text).
			WithHint("restore the volume from a snapshot or repair its file system first; or, off a dying disk, move it all the same: --damaged"))
	case c.req.Options.Switch == drover.SwitchLate:
		c.against("damaged", drover.Errorf(drover.Precondition, "%s: a late switch would never be made", text).WithField("switch").WithHint("leave --switch out, or take early"))
	default:
		c.found("damaged", text)
	}
}

// damagedLocked says, by the conditions of its host, why a drain of a host that is trusted leaves a machine where it is; empty for nothing.
func (f *Fleet) damagedLocked(host drover.HostID, m drover.Machine) string {
	info, _ := f.hostLocked(host)
	root := string(drover.RootDisk(m.ID))
	for _, c := range info.Conditions {
		if c.Code != drover.LayerDamaged {
			continue
		}
		mine := c.Subject == root || strings.HasPrefix(c.Subject, root+".")
		for _, mount := range m.Config.Mounts {
			mine = mine || c.Subject == string(mount.Volume)
		}
		if mine {
			return damagedStays(c.Text)
		}
	}
	return ""
}

// damagedStays says why a drain leaves a machine where its damaged disk is.
func damagedStays(damage string) string {
	return damage + ": its move would not end. A drain with --suspect takes it along, and drover machine move --damaged does"
}
