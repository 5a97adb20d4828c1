package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"drover"
)

// worstFirst orders conditions: critical ones before warnings, then by code and subject.
func worstFirst(conditions []drover.Condition) []drover.Condition {
	rank := func(c drover.Condition) int {
		if c.Severity == drover.SeverityCritical {
			return 0
		}
		return 1
	}
	sorted := slices.Clone(conditions)
	slices.SortFunc(sorted, func(a, b drover.Condition) int {
		return cmp.Or(rank(a)-rank(b), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Subject, b.Subject))
	})
	return sorted
}

// conditionCodes names each kind of condition once, the worst first, with how often it is there when that is more than once. A critical
// one has a mark.
func conditionCodes(conditions []drover.Condition) string {
	type kind struct {
		code     drover.ConditionCode
		severity drover.Severity
	}
	times := map[kind]int{}
	var kinds []kind
	for _, c := range worstFirst(conditions) {
		k := kind{c.Code, c.Severity}
		if times[k] == 0 {
			kinds = append(kinds, k)
		}
		times[k]++
	}
	var parts []string
	for _, k := range kinds {
		text := string(k.code)
		if k.severity == drover.SeverityCritical {
			text += "!"
		}
		if times[k] > 1 {
			text += fmt.Sprintf(" (%d)", times[k])
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// printConditions lists what is not as it should be; nothing when there is nothing.
func (c *cli) printConditions(conditions []drover.Condition) error {
	if len(conditions) == 0 {
		return nil
	}
	t := table{header: []string{"SEVERITY", "CONDITION", "SUBJECT", "SINCE", "TEXT"}}
	for _, cond := range worstFirst(conditions) {
		t.add(cond.Severity, cond.Code, cond.Subject, c.age(cond.Since), cond.Text)
	}
	if err := c.print("\n"); err != nil {
		return err
	}
	return c.printTable(t, "")
}
