package plan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover"
)

func TestPlaceSpreadsAsChooseWould(t *testing.T) {
	offer := func(host, region string, freeMiB, fits int, reasons ...string) drover.Offer {
		return drover.Offer{Host: drover.HostID(host), Region: drover.Region(region), MemoryFree: drover.Bytes(freeMiB) * drover.MiB, Fits: fits, Reasons: reasons}
	}
	offers := []drover.Offer{offer("h1", "ams", 2048, 4), offer("h2", "ams", 1024, 2), offer("h3", "fra", 4096, 8), offer("h4", "ams", 10, 0, "10 MiB free")}
	opts := Options{Regions: []drover.Region{"ams", "fra"}, Silent: map[drover.HostID]string{"h5": "does not answer"},
		SameApp: map[drover.HostID]int{"h1": 1}, Exclude: map[drover.HostID]string{"h4": "is cordoned"}}
	where := map[drover.HostID]drover.Region{"h5": "fra"}
	placed := func(p drover.Place) map[string]int {
		m := map[string]int{}
		for _, h := range p.Hosts {
			if h.Placed > 0 {
				m[string(h.Host)] = h.Placed
			}
		}
		return m
	}
	for _, tt := range []struct {
		name    string
		req     Request
		count   int
		want    map[string]int
		missing string
	}{
		{name: "one goes where none of the app is, and most is free", req: Request{MemoryMB: 512}, count: 1, want: map[string]int{"h3": 1}},
		{name: "several are spread", req: Request{MemoryMB: 512}, count: 5, want: map[string]int{"h1": 1, "h2": 2, "h3": 2}},
		{name: "one region", req: Request{MemoryMB: 512, Region: "ams"}, count: 6, want: map[string]int{"h1": 4, "h2": 2}},
		{name: "what is missing is named", req: Request{MemoryMB: 512, Region: "ams"}, count: 8, want: map[string]int{"h1": 4, "h2": 2}, missing: "2 more 512 MiB machines"},
		{name: "the next region takes what the first cannot", req: Request{MemoryMB: 512, Region: "ams", Fallback: []drover.Region{"fra"}}, count: 7,
			want: map[string]int{"h1": 4, "h2": 2, "h3": 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Place(tt.req, tt.count, offers, opts, where)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, placed(p)); diff != "" || p.Missing != tt.missing || len(p.Hosts) != 5 {
				t.Errorf("%s\nmissing %q, hosts %+v", diff, p.Missing, p.Hosts)
			}
			reasons := map[drover.HostID]string{}
			for _, h := range p.Hosts {
				reasons[h.Host] = strings.Join(h.Reasons, ", ")
			}
			if !strings.HasPrefix(reasons["h4"], "10 MiB free, is cordoned") || reasons["h5"] != "does not answer" || (tt.req.Region == "ams" && tt.req.Fallback == nil) != (reasons["h3"] != "") {
				t.Errorf("reasons %v", reasons)
			}
			err = Refusal(tt.req, p)
			if (tt.missing != "") != drover.Is(err, drover.Exhausted) || (err != nil && !strings.Contains(err.Error(), "room for 6 of 8 machines; 2 more 512 MiB machines")) {
				t.Errorf("refusal %v", err)
			}
			if tt.count == 1 {
				if host, err := Choose(tt.req, offers, opts); err != nil || placed(p)[string(host)] != 1 {
					t.Errorf("Choose takes %s, %v", host, err)
				}
			}
		})
	}
	if _, err := Place(Request{Region: "ams", Fallback: []drover.Region{"mars"}}, 1, offers, opts, where); !drover.Is(err, drover.Invalid) {
		t.Errorf("an unknown region: %v", err)
	}
}

func TestTheFirstRegionThatHasRoomIsTaken(t *testing.T) {
	opts := Options{Regions: []drover.Region{"ams", "fra"}}
	req := Request{What: "machine", Region: "ams", Fallback: []drover.Region{"fra"}}
	full := drover.Offer{Host: "h1", Region: "ams", Reasons: []string{"full"}}
	free := drover.Offer{Host: "h2", Region: "ams", MemoryFree: 1}
	other := drover.Offer{Host: "h3", Region: "fra", MemoryFree: 100}
	for _, tt := range []struct {
		offers []drover.Offer
		want   drover.HostID
	}{{[]drover.Offer{full, free, other}, "h2"}, {[]drover.Offer{full, other}, "h3"}} {
		if got, err := Choose(req, tt.offers, opts); got != tt.want || err != nil {
			t.Errorf("%s, %v; want %s", got, err, tt.want)
		}
	}
	if _, err := Choose(req, []drover.Offer{full}, opts); err == nil || !strings.Contains(err.Error(), `in region "ams" or "fra"`) {
		t.Error(err)
	}
}
