package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"drover"
	"drover/plan"
)

// unbounded stands for a number of CPUs that a host does not tell.
const unbounded = 1 << 20

// emptyRooms lists the worker hosts of all regions, with what closes them and no room.
func (f *Fleet) emptyRooms() []plan.Room {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	apps := map[drover.HostID]map[drover.AppName]int{}
	for id, p := range f.state.placements.items {
		if apps[p.value.Host] == nil {
			apps[p.value.Host] = map[drover.AppName]int{}
		}
		apps[p.value.Host][f.state.machines.items[id].value.App]++
	}
	var rooms []plan.Room
	for id := range f.state.hosts.items {
		info, _ := f.hostLocked(drover.HostID(id))
		if !isWorker(info) {
			continue
		}
		r := plan.Room{Host: info.ID, Region: info.Region, CPUs: cmp.Or(info.CPUs, unbounded), Dedication: info.Dedication, Closed: f.closedLocked(info.ID), Apps: apps[info.ID]}
		if r.Closed == "" && info.Status == drover.HostUnreachable {
			r.Closed = "does not answer"
		}
		rooms = append(rooms, r)
	}
	slices.SortFunc(rooms, func(a, b plan.Room) int { return cmp.Compare(a.Host, b.Host) })
	return rooms
}

// nearlyFull is the share of a disk from which on a host counts as full where nobody is asked.
const nearlyFull = 0.9

// knownRooms is what the hosts have left by what they said last, and by what is placed on them. No host is asked; the disk counts only when it is
// nearly full.
func (f *Fleet) knownRooms() []plan.Room {
	rooms := f.emptyRooms()
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	for i := range rooms {
		info, _ := f.hostLocked(rooms[i].Host)
		placed := drover.Bytes(0)
		for id := range f.state.placedOn[rooms[i].Host] {
			placed += drover.Bytes(f.state.machines.items[id].value.Config.Guest.MemoryMB) * drover.MiB
		}
		rooms[i].Memory, rooms[i].Disk = info.Memory-max(placed, info.MemoryUsed), info.Disk-info.DiskUsed
		if rooms[i].Closed == "" && info.Disk > 0 && float64(info.DiskUsed) > nearlyFull*float64(info.Disk) {
			rooms[i].Closed = fmt.Sprintf("its disk is %d %% full", 100*info.DiskUsed/info.Disk)
		}
	}
	return rooms
}

// askedRooms asks the open hosts of a region what they have left, and takes off what drains have promised away: all that is not reserved on its host
// yet, and what waits in drains that were there before the one named.
func (f *Fleet) askedRooms(ctx context.Context, region drover.Region, before drover.Drain) []plan.Room {
	rooms := slices.DeleteFunc(f.emptyRooms(), func(r plan.Room) bool { return r.Region != region })
	var ask []drover.HostID
	for i, r := range rooms {
		if before.Kind == drover.DrainReturn && r.Host == before.Host && f.silent(r.Host) <= f.timing.Unreachable {
			rooms[i].Closed, r.Closed = "", "" // the mark that closes it is taken away before anything is moved
		}
		if r.Closed == "" {
			ask = append(ask, r.Host)
		}
	}
	silent := map[drover.HostID]string{}
	got, slow := f.offers(ctx, ask, drover.OfferRequest{}, f.timing.Offer, silent)
	if len(got) == 0 && len(slow) > 0 { // nobody was quick: those who were slow get the time that they need
		for _, host := range slow {
			delete(silent, host)
		}
		got, _ = f.offers(ctx, slow, drover.OfferRequest{}, f.timing.Apply, silent)
	}
	for i := range rooms {
		if why := silent[rooms[i].Host]; why != "" {
			rooms[i].Closed = why
		}
		for _, o := range got {
			if o.Host == rooms[i].Host {
				rooms[i].Memory, rooms[i].Disk = o.MemoryFree, o.DiskFree
			}
		}
	}
	return f.bookPromises(rooms, before)
}

// bookPromises takes off what is promised.
func (f *Fleet) bookPromises(rooms []plan.Room, before drover.Drain) []plan.Room {
	for _, d := range f.activeDrains() {
		earlier := d.ID != before.ID && (before.CreatedAt.IsZero() || d.CreatedAt.Before(before.CreatedAt) || (d.CreatedAt.Equal(before.CreatedAt) && d.ID < before.ID))
		for _, i := range d.Items {
			promised := i.State == drover.ItemHook || i.State == drover.ItemStarting || (i.State == drover.ItemMoving && i.Phase == drover.PhaseReserve)
			if !promised && !(earlier && i.State == drover.ItemWaiting) || i.Target == "" {
				continue
			}
			rooms = plan.Book(rooms, plan.Candidate{Machine: i.Machine, App: i.App, MemoryMB: i.MemoryMB, Bytes: i.Bytes}, i.Target)
		}
	}
	return rooms
}

// activeDrains lists the drains that have not ended, the oldest first.
func (f *Fleet) activeDrains() []drover.Drain {
	var list []drover.Drain
	for _, i := range f.state.drains.all() {
		if !i.value.Ended() {
			list = append(list, i.value)
		}
	}
	slices.SortFunc(list, func(a, b drover.Drain) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	return list
}
