package api

import (
	"cmp"
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// maxPage bounds how many things one page of a list has.
const maxPage = 10_000

// queryOrder reads whether a list is to be the other way round.
func queryOrder(q url.Values) (descending bool, err error) {
	switch order := q.Get("order"); order {
	case "", "asc":
		return false, nil
	case "desc":
		return true, nil
	default:
		return false, badField("order", "is %q; expected asc or desc", order)
	}
}

// machineFilter is what a list of machines is narrowed by.
type machineFilter struct {
	deleted    bool
	region     string
	states     []drover.MachineState
	metadata   map[string]string
	summary    bool
	descending bool
	// limit is how many there are on a page, 0 for all on one; after is where it begins.
	limit int
	after *place
}

// place is where in a list a page ends: the list is ordered by time, and by ID where times are equal.
type place struct {
	at time.Time
	id drover.MachineID
}

func (p place) compare(o place) int { return cmp.Or(p.at.Compare(o.at), cmp.Compare(p.id, o.id)) }

func placeOf(m drover.Machine) place { return place{m.CreatedAt, m.ID} }

// cursor writes a position so that nobody is tempted to make one up.
func (p place) cursor() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(p.at.UnixNano(), 36) + "." + string(p.id)))
}

func readCursor(text string) (*place, error) {
	bad := badField("cursor", "is %q; expected one that a list has answered", text)
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, bad
	}
	at, id, _ := strings.Cut(string(data), ".")
	nanos, err := strconv.ParseInt(at, 36, 64)
	if err != nil || !drover.ValidMachineID(id) {
		return nil, bad
	}
	return &place{time.Unix(0, nanos), drover.MachineID(id)}, nil
}

// filterStates reads the states that a list can be narrowed to.
func filterStates(asked []string) ([]drover.MachineState, error) {
	var states []drover.MachineState
	for _, list := range asked {
		for s := range strings.SplitSeq(list, ",") {
			state := drover.MachineState(strings.TrimSpace(s))
			if !isState(state) {
				return nil, badField("state", "is %q; expected one of %q, several of them separated by commas or given one by one", s, waitable())
			}
			states = append(states, state)
		}
	}
	return states, nil
}

func filterOf(q url.Values) (f machineFilter, err error) {
	if f.deleted, err = queryBool(q, "include_deleted"); err != nil {
		return f, err
	}
	if f.summary, err = queryBool(q, "summary"); err != nil {
		return f, err
	}
	f.region = q.Get("region")
	if err = needName("region", f.region, true); err != nil {
		return f, err
	}
	if f.states, err = filterStates(q["state"]); err != nil {
		return f, err
	}
	if f.descending, err = queryOrder(q); err != nil {
		return f, err
	}
	limit, err := queryInt(q, "limit", 0, 1, maxPage)
	if err != nil {
		return f, err
	}
	f.limit = int(limit)
	if text := q.Get("cursor"); text != "" {
		if f.after, err = readCursor(text); err != nil {
			return f, err
		}
	}
	for name, values := range q {
		if key, ok := strings.CutPrefix(name, "metadata."); ok {
			if f.metadata == nil {
				f.metadata = map[string]string{}
			}
			f.metadata[key] = values[0]
		}
	}
	return f, nil
}

func (f machineFilter) takes(v fleet.MachineView) bool {
	switch {
	case v.Status.State == drover.StateDestroyed && !f.deleted && !slices.Contains(f.states, drover.StateDestroyed),
		f.region != "" && string(v.Machine.Region) != f.region,
		len(f.states) > 0 && !slices.Contains(f.states, v.Status.State):
		return false
	}
	for key, value := range f.metadata {
		if have, ok := v.Machine.Config.Metadata[key]; !ok || have != value {
			return false
		}
	}
	return true
}

// page orders the views and cuts out the page that is asked for. next is where the one after it begins; empty when there is none.
func (f machineFilter) page(views []fleet.MachineView) (page []fleet.MachineView, next string) {
	order := func(a, b fleet.MachineView) int { return placeOf(a.Machine).compare(placeOf(b.Machine)) }
	if f.descending {
		order = func(a, b fleet.MachineView) int { return placeOf(b.Machine).compare(placeOf(a.Machine)) }
	}
	slices.SortFunc(views, order)
	if f.after != nil {
		begin := slices.IndexFunc(views, func(v fleet.MachineView) bool {
			beyond := placeOf(v.Machine).compare(*f.after)
			return beyond > 0 && !f.descending || beyond < 0 && f.descending
		})
		if begin < 0 {
			return nil, ""
		}
		views = views[begin:]
	}
	if f.limit == 0 || len(views) <= f.limit {
		return views, ""
	}
	page = views[:f.limit]
	return page, placeOf(page[len(page)-1].Machine).cursor()
}

func (h *handler) listMachines(c *call) (any, error) {
	filter, err := filterOf(c.r.URL.Query())
	if err != nil {
		return nil, err
	}
	forms := &h.forms
	if filter.summary {
		forms = &h.summaries
	}
	if filter.all() {
		return h.wholeList(c, forms)
	}
	list := h.backend.Machines
	if filter.deleted || slices.Contains(filter.states, drover.StateDestroyed) {
		list = h.backend.AllMachines
	}
	views, err := list(c.ctx(), c.app.Name)
	if err != nil {
		return nil, err
	}
	page, next := filter.page(slices.DeleteFunc(views, func(v fleet.MachineView) bool {
		return !c.principal.Limits.Sees(c.app.Name, v.Machine.ID) || !filter.takes(v)
	}))
	if next != "" {
		u := *c.r.URL
		q := u.Query()
		q.Set("cursor", next)
		u.RawQuery = q.Encode()
		c.w.Header().Set("Link", "<"+u.RequestURI()+`>; rel="next"`)
		c.w.Header().Set(apiv1.NextCursorHeader, next)
	}
	return forms.list(page)
}

// all reports whether the filter takes every machine that is not destroyed, in the order in which the backend has them.
func (f machineFilter) all() bool {
	return !f.deleted && f.region == "" && len(f.states) == 0 && len(f.metadata) == 0 && !f.descending && f.limit == 0 && f.after == nil
}

// wholeList answers with all machines of the app that the token may see. Only those are looked at that have changed since the last time: what most clients ask for
// again and again costs little more than to send it.
func (h *handler) wholeList(c *call, forms *formCache) (any, error) {
	keys, err := h.backend.MachineKeys(c.ctx(), c.app.Name)
	if err != nil {
		return nil, err
	}
	all := !c.principal.Limits.NamesMachines()
	if !all {
		keys = slices.DeleteFunc(slices.Clone(keys), func(k *fleet.MachineKey) bool { return !c.principal.Limits.Sees(c.app.Name, k.ID) })
	}
	return forms.whole(c.app.Name, keys, all, func(id drover.MachineID) (fleet.MachineView, error) {
		return h.backend.Machine(c.ctx(), c.app.Name, id)
	})
}

// summaryOf leaves out of a machine what makes it long.
func summaryOf(m apiv1.Machine) apiv1.Machine {
	m.Config, m.IncompleteConfig, m.Events, m.Checks = drover.MachineConfig{}, nil, []apiv1.Event{}, []drover.CheckStatus{}
	return m
}
