package fleet

import (
	"sync"
	"testing"
)

// What a process wrote itself may be taken in after the watch has told that it was removed: it must not come back.
func TestOldNewsDoesNotBringARecordBack(t *testing.T) {
	news := map[string]func(tab *table[string]){
		"written":  func(tab *table[string]) { tab.set("a", "one", 5, false) },
		"told":     func(tab *table[string]) { tab.set("a", "one", 5, true) },
		"removed":  func(tab *table[string]) { tab.drop("a", 6, false) },
		"told off": func(tab *table[string]) { tab.drop("a", 6, true) },
	}
	for _, order := range [][]string{
		{"written", "told", "removed", "told off"}, {"told", "removed", "told off", "written"}, {"told", "told off", "written", "removed"},
		{"told", "told off", "removed", "written"}, {"told", "removed", "written", "told off"}, {"removed", "told", "written", "told off"},
		{"written", "removed", "told", "told off"}, {"removed", "written", "told", "told off"},
	} {
		tab := newTable[string](&sync.RWMutex{}, "things")
		for _, n := range order {
			news[n](tab)
		}
		if _, _, there := tab.seen("a"); there {
			t.Errorf("%v: the record is back", order)
		}
		if len(tab.gone) != 0 {
			t.Errorf("%v: the deletion is remembered for ever: %v", order, tab.gone)
		}
		tab.set("a", "two", 9, false)
		if v, _, there := tab.seen("a"); !there || v != "two" {
			t.Errorf("%v: a new record of the key is not there", order)
		}
	}
}
