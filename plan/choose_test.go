package plan

import (
	"testing"

	"drover"
)

func TestChoose(t *testing.T) {
	offer := func(host, region string, freeMiB int, machines int, reasons ...string) drover.Offer {
		return drover.Offer{Host: drover.HostID(host), Region: drover.Region(region), MemoryFree: drover.Bytes(freeMiB) * drover.MiB,
			Machines: machines, Reasons: reasons}
	}
	disk := func(host string, provisioned, free drover.Bytes) drover.Offer {
		return drover.Offer{Host: drover.HostID(host), Region: "ams", Disk: 100 * drover.GiB, DiskProvisioned: provisioned * drover.GiB, DiskFree: free * drover.GiB}
	}
	regions := []drover.Region{"fra", "ams"}
	tests := []struct {
		name   string
		region drover.Region
		offers []drover.Offer
		opts   Options
		volume bool
		want   drover.HostID
		code   drover.Code
		text   string
	}{
		{name: "most free memory", offers: []drover.Offer{offer("h1", "ams", 100, 0), offer("h2", "fra", 900, 5)}, want: "h2"},
		{name: "spread comes first", offers: []drover.Offer{offer("h1", "ams", 100, 0), offer("h2", "ams", 900, 5)},
			opts: Options{SameApp: map[drover.HostID]int{"h2": 1}}, want: "h1"},
		{name: "fewer machines at the same memory", offers: []drover.Offer{offer("h1", "ams", 100, 3), offer("h2", "ams", 100, 2)}, want: "h2"},
		{name: "the name decides a tie", offers: []drover.Offer{offer("h2", "ams", 100, 2), offer("h1", "ams", 100, 2)}, want: "h1"},
		{name: "region", region: "ams", offers: []drover.Offer{offer("h1", "ams", 100, 0), offer("h2", "fra", 900, 0)}, want: "h1"},
		{name: "a volume goes where the smallest share is provisioned", volume: true, offers: []drover.Offer{disk("h1", 120, 90), disk("h2", 80, 20)}, want: "h2"},
		{name: "and where more is free", volume: true, offers: []drover.Offer{disk("h1", 80, 20), disk("h2", 80, 30)}, want: "h2"},
		{name: "but is spread first", volume: true, offers: []drover.Offer{disk("h1", 120, 90), disk("h2", 80, 20)},
			opts: Options{SameApp: map[drover.HostID]int{"h2": 1}}, want: "h1"},
		{name: "excluded", offers: []drover.Offer{offer("h1", "ams", 900, 0), offer("h2", "ams", 100, 0)},
			opts: Options{Exclude: map[drover.HostID]string{"h1": "the machine is there already"}}, want: "h2"},
		{name: "unknown region", region: "mars", offers: []drover.Offer{offer("h1", "ams", 900, 0)}, code: drover.Invalid,
			text: `region "mars" is unknown: the fleet has ams, fra`},
		{name: "no room names each host", region: "ams",
			offers: []drover.Offer{offer("h2", "ams", 412, 0, "412 MiB of memory free, 512 MiB needed"), offer("h1", "ams", 1, 0, "1 CPU, 2 needed", "no disk"),
				offer("h9", "fra", 1, 0, "not asked for")},
			opts: Options{Silent: map[drover.HostID]string{"h3": "does not answer"}}, code: drover.Exhausted,
			text: `no host for machine "web" in region "ams" has room: h1: 1 CPU, 2 needed, no disk; h2: 412 MiB of memory free, 512 MiB needed; h3: does not answer`},
		{name: "nobody answers", opts: Options{Silent: map[drover.HostID]string{"h3": "does not answer"}}, code: drover.Unavailable,
			text: `no host for machine "web": h3: does not answer`},
		{name: "no hosts", code: drover.Unavailable, text: `no host for machine "web": no worker host has joined the fleet`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.opts.Regions = regions
			got, err := Choose(Request{What: `machine "web"`, Region: tt.region, Volume: tt.volume}, tt.offers, tt.opts)
			if got != tt.want || drover.CodeOf(err) != tt.code || (err != nil && err.Error() != tt.text) {
				t.Fatalf("got %q, %v; want %q, %s: %s", got, err, tt.want, tt.code, tt.text)
			}
		})
	}
}

func TestAnUnknownRegionOfAnEmptyFleetIsNotTheUsersFault(t *testing.T) {
	if e := UnknownRegion("ams", nil); e.Code != drover.Unavailable || e.Field != "region" {
		t.Fatalf("got %#v", e)
	}
}
