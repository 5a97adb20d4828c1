package drover

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestCaveatsAreTextAndBack(t *testing.T) {
	for text, valid := range map[string]bool{
		"org = acme": true, "app = ledger shop": true, "machine = 0123456789abcd": true, "allow = read exec": true, "source = 10.0.0.0/8 fd00::/8": true,
		"expires = 2030-01-31T12:00:00Z": true, "not-before = 2030-01-31T12:00:00+01:00": true,
		"": false, "app": false, "app = ": false, "app = A": false, "org = a b": false, "machine = x": false, "allow = all": false, "source = 10.0.0.1": false,
		"expires = soon": false, "expires = 2030-01-31T12:00:00Z 2031-01-31T12:00:00Z": false, "color = red": false, "app  = x": false, "app = x  y": false,
	} {
		c := ReadCaveat(text)
		if (c.Valid() == nil) != valid {
			t.Errorf("%q: %v", text, c.Valid())
		}
		if valid && c.String() != text {
			t.Errorf("%q became %q", text, c)
		}
		if !valid && (Caveats{c}).Check(Need{Action: ActSelf, Wide: true, At: time.Unix(0, 0)}) == nil {
			t.Errorf("%q lets something through", text)
		}
	}
	cs := Caveats{{Kind: CaveatApp, Values: []string{"a", "b"}}, Moment(CaveatExpires, time.Unix(1e9, 0))}
	data, err := json.Marshal(cs)
	var back Caveats
	if err == nil {
		err = json.Unmarshal(data, &back)
	}
	if err != nil || string(data) != `["app = a b","expires = 2001-09-09T01:46:40Z"]` || !slices.EqualFunc(cs, back, func(a, b Caveat) bool { return a.String() == b.String() }) {
		t.Errorf("%s, %v, %v", data, back, err)
	}
}

// A caveat more never allows what was not allowed, or shows what was not shown. Seeded.
func TestACaveatMoreIsNeverMore(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	apps, machines := []string{"a", "b", "c"}, []string{"00000000000001", "00000000000002"}
	pick := func(from []string) []string {
		return []string{from[r.IntN(len(from))], from[r.IntN(len(from))]}
	}
	now := time.Unix(1e9, 0)
	caveat := func() Caveat {
		switch r.IntN(6) {
		case 0:
			return Caveat{Kind: CaveatApp, Values: pick(apps)}
		case 1:
			return Caveat{Kind: CaveatMachine, Values: pick(machines)}
		case 2:
			return Caveat{Kind: CaveatAllow, Values: pick(AllowValues())}
		case 3:
			return Moment(CaveatExpires, now.Add(time.Duration(r.IntN(3))*time.Second))
		case 4:
			return Moment(CaveatNotBefore, now.Add(time.Duration(r.IntN(3))*time.Second))
		default:
			return Caveat{Kind: CaveatSource, Values: pick([]string{"10.0.0.0/8", "192.0.2.0/24", "::/0"})}
		}
	}
	allowed := 0
	for range 20_000 {
		var cs Caveats
		for range r.IntN(4) {
			cs = append(cs, caveat())
		}
		more := append(slices.Clone(cs), caveat())
		need := Need{Action: Actions[r.IntN(len(Actions))], App: AppName(append(apps, "")[r.IntN(4)]), Machine: MachineID(append(machines, "")[r.IntN(3)]),
			Wide: r.IntN(2) == 0, Source: netip.MustParseAddr([]string{"10.1.1.1", "192.0.2.1", "fd00::1"}[r.IntN(3)]), At: now.Add(time.Duration(r.IntN(3)) * time.Second)}
		if more.Check(need) == nil {
			allowed++
			if err := cs.Check(need); err != nil {
				t.Fatalf("%v allow %+v, %v do not: %v", more, need, cs, err)
			}
		}
		if more.Sees(need.App, need.Machine) && !cs.Sees(need.App, need.Machine) {
			t.Fatalf("%v show %+v, %v do not", more, need, cs)
		}
	}
	if allowed < 500 {
		t.Errorf("only %d were allowed: this tries nothing", allowed)
	}
}
