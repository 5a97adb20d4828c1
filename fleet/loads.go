package fleet

import "drover"

// loads keeps what is placed on hosts, counted as records come and go: to count thousands of machines anew for each placement would cost more than the
// placement. It is guarded by the state's lock.
type loads struct {
	// apps counts the machines of each app on each host, memory adds up what the machines on a host are sized to.
	apps   map[drover.AppName]map[drover.HostID]int
	memory map[drover.HostID]drover.Bytes
	// counted is as what each machine was counted.
	counted map[string]load
}

type load struct {
	app    drover.AppName
	host   drover.HostID
	memory drover.Bytes
}

func newLoads() loads {
	return loads{apps: map[drover.AppName]map[drover.HostID]int{}, memory: map[drover.HostID]drover.Bytes{}, counted: map[string]load{}}
}

// recountLocked counts a machine as it is now: one counts where it has both a record and a placement, whichever comes first.
func (s *state) recountLocked(id string) {
	m, known := s.machines.items[id]
	p, placed := s.placements.items[id]
	was, had := s.loads.counted[id]
	is := load{app: m.value.App, host: p.value.Host, memory: drover.Bytes(m.value.Config.Guest.MemoryMB) * drover.MiB}
	counts := known && placed
	if had == counts && (!had || was == is) {
		return
	}
	if had {
		s.loads.add(was, -1)
		delete(s.loads.counted, id)
	}
	if counts {
		s.loads.add(is, 1)
		s.loads.counted[id] = is
	}
}

func (l loads) add(what load, sign int) {
	hosts := l.apps[what.app]
	if hosts == nil {
		hosts = map[drover.HostID]int{}
		l.apps[what.app] = hosts
	}
	if hosts[what.host] += sign; hosts[what.host] == 0 {
		delete(hosts, what.host)
	}
	if len(hosts) == 0 {
		delete(l.apps, what.app)
	}
	if l.memory[what.host] += drover.Bytes(sign) * what.memory; l.memory[what.host] == 0 {
		delete(l.memory, what.host)
	}
}
