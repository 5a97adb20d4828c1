package drover

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// CaveatKind says what a caveat limits.
type CaveatKind string

// The kinds of caveats. A kind that is not known refuses everything.
const (
	// CaveatOrganization: only what is of the organization.
	CaveatOrganization CaveatKind = "org"
	// CaveatApp: only these apps. CaveatMachine: only these machines.
	CaveatApp     CaveatKind = "app"
	CaveatMachine CaveatKind = "machine"
	// CaveatAllow: only these classes of actions (AllowValues).
	CaveatAllow CaveatKind = "allow"
	// CaveatExpires and CaveatNotBefore: only before and from this moment on (RFC 3339).
	CaveatExpires   CaveatKind = "expires"
	CaveatNotBefore CaveatKind = "not-before"
	// CaveatSource: only from these networks (CIDR).
	CaveatSource CaveatKind = "source"
	// CaveatFrom: only until one of these tokens is revoked with what was made from it. A token that was made with another has it.
	CaveatFrom CaveatKind = "from"
)

// maxCaveatValues bounds the values of one caveat.
const maxCaveatValues = 64

// Caveat is one limit of a token. Several of a token hold all together, so that whoever adds one can only narrow it. Its text is
// "KIND = VALUE VALUE …", which is also its JSON form.
type Caveat struct {
	Kind   CaveatKind
	Values []string
}

// String returns the caveat's text.
func (c Caveat) String() string { return string(c.Kind) + " = " + strings.Join(c.Values, " ") }

// MarshalText is encoding.TextMarshaler's.
func (c Caveat) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a caveat that may be of a later version; Valid says whether it is known.
func (c *Caveat) UnmarshalText(text []byte) error {
	kind, values, _ := strings.Cut(string(text), " = ")
	*c = Caveat{Kind: CaveatKind(kind), Values: strings.Fields(values)}
	return nil
}

// ReadCaveat reads a caveat's text. What it does not understand becomes a caveat that refuses everything.
func ReadCaveat(text string) Caveat {
	var c Caveat
	kind, values, _ := strings.Cut(text, " = ")
	c.Kind, c.Values = CaveatKind(kind), strings.Fields(values)
	if c.String() != text {
		return Caveat{Kind: CaveatKind(text)}
	}
	return c
}

// Valid returns Invalid, with the kind as its field, unless the caveat says something.
func (c Caveat) Valid() error {
	fail := func(format string, args ...any) error {
		return Errorf(Invalid, format, args...).WithField(string(c.Kind))
	}
	if len(c.Values) == 0 || len(c.Values) > maxCaveatValues {
		return fail("caveat %q has %d values; expected 1 to %d", c.Kind, len(c.Values), maxCaveatValues)
	}
	for _, v := range c.Values {
		switch c.Kind {
		case CaveatOrganization, CaveatApp:
			if c.Kind == CaveatOrganization && len(c.Values) > 1 {
				return fail("caveat org has %d names; a token is of one organization", len(c.Values))
			}
			if !ValidName(v) {
				return fail("caveat %s: %q is not a name of lower-case letters, digits and hyphens", c.Kind, v)
			}
		case CaveatMachine:
			if len(v) != 14 || strings.Trim(v, "0123456789abcdef") != "" {
				return fail("caveat machine: %q is not a machine ID, which has 14 digits from 0 to f", v)
			}
		case CaveatAllow:
			if !slices.Contains(AllowValues(), v) {
				return fail("caveat allow: %q is not one of %s", v, strings.Join(AllowValues(), ", "))
			}
		case CaveatFrom:
			if !TokenID(v).Valid() {
				return fail("caveat from: %q is not the ID of a token, which is \"tok_\" and 16 digits from 0 to f", v)
			}
		case CaveatSource:
			if _, err := netip.ParsePrefix(v); err != nil {
				return fail("caveat source: %q is not a network such as 10.0.0.0/8: %w", v, err)
			}
		case CaveatExpires, CaveatNotBefore:
			if _, err := time.Parse(time.RFC3339, v); err != nil || len(c.Values) > 1 {
				return fail("caveat %s: %q is not one time such as 2030-01-31T12:00:00Z", c.Kind, strings.Join(c.Values, " "))
			}
		default:
			return fail("caveat %q is not known", c.Kind)
		}
	}
	return nil
}

// Moment is the caveat with a time.
func Moment(kind CaveatKind, at time.Time) Caveat {
	return Caveat{Kind: kind, Values: []string{at.UTC().Format(time.RFC3339)}}
}

// Caveats are all limits of a token.
type Caveats []Caveat

// Current returns Denied while the token is not valid at the moment: expired, not valid yet, or with a caveat that is not known here.
func (cs Caveats) Current(now time.Time) error {
	for _, c := range cs {
		if err := c.Valid(); err != nil {
			return Errorf(Denied, "the token has a caveat that is not known here, %q", c).WithHint("use another token, or a newer version of the server")
		}
		if c.Kind != CaveatExpires && c.Kind != CaveatNotBefore {
			continue
		}
		at, err := time.Parse(time.RFC3339, c.Values[0])
		switch {
		case err != nil:
			return Errorf(Denied, "the token has a caveat that cannot be read, %q", c)
		case c.Kind == CaveatExpires && !now.Before(at):
			return Errorf(Denied, "the token expired at %s", c.Values[0])
		case c.Kind == CaveatNotBefore && now.Before(at):
			return Errorf(Denied, "the token is not valid before %s", c.Values[0])
		}
	}
	return nil
}

// Check returns Denied, with the caveat that refuses, unless all caveats let the request through.
func (cs Caveats) Check(need Need) error {
	if err := cs.Current(need.At); err != nil {
		return err
	}
	for _, c := range cs {
		if why := c.refuses(need); why != "" {
			return Errorf(Denied, "the token's caveat %q refuses this: %s", c, why).WithHint("'drover whoami' shows what the token may do")
		}
	}
	return nil
}

// refuses returns why the caveat does not let the request through, "" if it does.
func (c Caveat) refuses(need Need) string {
	switch c.Kind {
	case CaveatApp:
		if need.App == "" && !need.Wide {
			return "it is not about one of the token's apps"
		}
		if need.App != "" && !slices.Contains(c.Values, string(need.App)) {
			return "it is about another app"
		}
	case CaveatMachine:
		if need.Machine == "" && !need.Wide {
			return "it is not about one of the token's machines"
		}
		if need.Machine != "" && !slices.Contains(c.Values, string(need.Machine)) {
			return "it is about another machine"
		}
	case CaveatAllow:
		if !slices.ContainsFunc(c.Values, func(class string) bool { return permits(class, need.Action) }) {
			return "it is of the class " + string(need.Action)
		}
	case CaveatSource:
		within := func(v string) bool {
			p, err := netip.ParsePrefix(v)
			return err == nil && p.Contains(need.Source.Unmap().WithZone(""))
		}
		if !slices.ContainsFunc(c.Values, within) {
			return "it comes from another address"
		}
	}
	return ""
}

// Sees reports whether what belongs to an app, and to a machine of it if one is given, may be shown.
func (cs Caveats) Sees(app AppName, machine MachineID) bool {
	for _, c := range cs {
		if c.Kind == CaveatApp && !slices.Contains(c.Values, string(app)) ||
			c.Kind == CaveatMachine && machine != "" && !slices.Contains(c.Values, string(machine)) {
			return false
		}
	}
	return true
}

// NamesMachines reports whether Sees depends on the machine.
func (cs Caveats) NamesMachines() bool {
	return slices.ContainsFunc(cs, func(c Caveat) bool { return c.Kind == CaveatMachine })
}

// Organization returns the one organization that the caveats leave, "" when they do not limit it. Denied when they leave none.
func (cs Caveats) Organization() (left string, err error) {
	for _, c := range cs {
		switch {
		case c.Kind != CaveatOrganization || len(c.Values) != 1:
		case left == "" || left == c.Values[0]:
			left = c.Values[0]
		default:
			return "", Errorf(Denied, "the token's caveats name two organizations: nothing is left that it is good for")
		}
	}
	return left, nil
}

// ExpiresAt returns the earliest end that the caveats set; zero for none.
func (cs Caveats) ExpiresAt() (first time.Time) {
	for _, c := range cs {
		if c.Kind != CaveatExpires || len(c.Values) != 1 {
			continue
		}
		if at, err := time.Parse(time.RFC3339, c.Values[0]); err == nil && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// From lists the tokens of which none may have been revoked with what was made from it.
func (cs Caveats) From() []TokenID {
	var ids []TokenID
	for _, c := range cs {
		for _, v := range c.Values {
			if c.Kind == CaveatFrom {
				ids = append(ids, TokenID(v))
			}
		}
	}
	return ids
}
