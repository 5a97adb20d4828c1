package fleet

import (
	"fmt"
	"slices"

	"drover"
)

// The values of Config.GuestSizes.
const (
	// GuestSizesAny: every size that a host can run.
	GuestSizesAny = "any"
	// GuestSizesDocumented: the sizes that the Machines API documents.
	GuestSizesDocumented = "documented"
)

// sizeRule is what is documented of one kind of CPU.
type sizeRule struct {
	cpus []int
	// least, most and step of the memory are per CPU, in MB; the step is for the machine.
	least, most, step int
}

var sizeRules = map[string]sizeRule{
	drover.CPUShared:      {cpus: []int{1, 2, 4, 6, 8}, least: 256, most: 2048, step: 256},
	drover.CPUPerformance: {cpus: []int{1, 2, 4, 6, 8, 10, 12, 14, 16}, least: 2048, most: 8192, step: 1024},
}

// checkSize refuses a guest that is not of a documented size, where only those are allowed. One that a machine has already, it may keep.
func (f *Fleet) checkSize(field string, g drover.Guest, has *drover.Guest) error {
	if f.cfg.GuestSizes != GuestSizesDocumented {
		return nil
	}
	if has != nil && has.CPUKind == g.CPUKind && has.CPUs == g.CPUs && has.MemoryMB == g.MemoryMB {
		return nil
	}
	return checkDocumented(field, g)
}

func checkDocumented(field string, g drover.Guest) error {
	const hint = "the operator of a fleet can allow every size: guest_sizes in host.json of the control hosts"
	rule, ok := sizeRules[g.CPUKind]
	if !ok {
		return nil // refused elsewhere
	}
	if !slices.Contains(rule.cpus, g.CPUs) {
		return drover.Errorf(drover.Invalid, "%s.cpus: %d is not a number of %s CPUs: use one of %v", field, g.CPUs, g.CPUKind, rule.cpus).
			WithField(field + ".cpus").WithHint(hint)
	}
	least, most := rule.least*g.CPUs, rule.most*g.CPUs
	if g.MemoryMB < least || g.MemoryMB > most || g.MemoryMB%rule.step != 0 {
		return drover.Errorf(drover.Invalid, "%s.memory_mb: %d is not a size for %s: use %d to %d in steps of %d", field, g.MemoryMB,
			cpusText(g), least, most, rule.step).WithField(field + ".memory_mb").WithHint(hint)
	}
	return nil
}

func cpusText(g drover.Guest) string {
	if g.CPUs == 1 {
		return fmt.Sprintf("1 %s CPU", g.CPUKind)
	}
	return fmt.Sprintf("%d %s CPUs", g.CPUs, g.CPUKind)
}
