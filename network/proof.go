package network

import (
	"context"
	"fmt"
	"slices"
	"time"

	"drover"
	"drover/route"
)

// A host says itself, in a record that it alone writes, by which address and key it is reached. Who it is the control side says, which has proven that
// nobody else is that. What a host says beyond that is not believed: it would get the packets of another one's machines.

// identitiesWait is how long hosts are not met because it is not known who they are. A control host of an earlier version does not tell.
const identitiesWait = 3 * time.Second

func (f *feed) awaitIdentities(ctx context.Context) {
	const step = 20 * time.Millisecond
	for waited := time.Duration(0); waited < identitiesWait && ctx.Err() == nil && !f.knows("identities"); waited += step {
		pause(ctx, step)
	}
}

// met takes in what a host says of itself.
func (f *feed) met(id drover.HostID, h *drover.HostInfo) {
	f.mu.Lock()
	if f.said[id] = h; h == nil {
		delete(f.said, id)
	}
	f.mu.Unlock()
	f.meet(id)
}

// identified takes in who a host is.
func (f *feed) identified(id drover.HostID, rec *drover.HostIdentity) {
	f.mu.Lock()
	if rec == nil {
		delete(f.identities, id)
	} else {
		f.identities[id] = *rec
	}
	_, said := f.said[id]
	f.mu.Unlock()
	if said {
		f.meet(id)
	}
}

// meetAll judges all hosts, as soon as it is known who each is.
func (f *feed) meetAll() {
	f.mu.Lock()
	ids := make([]drover.HostID, 0, len(f.said))
	for id := range f.said {
		ids = append(ids, id)
	}
	f.mu.Unlock()
	slices.Sort(ids)
	for _, id := range ids {
		f.meet(id)
	}
}

// meet makes of a host what is proven of it. Where what it says is not, what was proven before stays: while it gets another key, the news of what it says and of who it
// is come one after the other.
func (f *feed) meet(id drover.HostID) {
	f.meeting.Lock()
	defer f.meeting.Unlock()
	f.mu.Lock()
	h := f.said[id]
	why := ""
	if h != nil && h.Mesh != nil && !f.lists["identities"].IsZero() {
		why = contradiction(f.identities[id], *h.Mesh)
	}
	if delete(f.impostors, id); why != "" {
		f.impostors[id] = why
		proven := *h
		proven.Mesh = nil
		for _, known := range f.table.Hosts() {
			if known.ID == id && known.Mesh != nil && known.Mesh.PrivateAddress == f.identities[id].PrivateAddress {
				proven.Mesh = known.Mesh
			}
		}
		h = &proven
	}
	f.mu.Unlock()
	f.change(func() []route.Route { return f.table.Meet(id, h) })
	if h == nil {
		f.peer(id, nil)
	} else {
		f.peer(id, h.Mesh)
	}
}

// contradiction says what of a host's word is not so; empty when all is.
func contradiction(rec drover.HostIdentity, m drover.HostMesh) string {
	mine := func(key string) bool { return key != "" && (key == rec.PublicKey || key == rec.NextKey) }
	switch {
	case rec.Number == 0:
		return "it has not joined the fleet"
	case m.PrivateAddress != rec.PrivateAddress:
		return fmt.Sprintf("it says that its address is %s, which is not its own (%s)", m.PrivateAddress, rec.PrivateAddress)
	case !mine(m.PublicKey) || m.NextKey != "" && !mine(m.NextKey):
		return "it says that it has a key that is not its own"
	}
	return ""
}
