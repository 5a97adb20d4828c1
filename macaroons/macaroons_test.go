package macaroons

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"gopkg.in/macaroon.v2"

	"drover"
)

const (
	key = drover.KeyID("key_0123456789abcdef")
	id  = drover.TokenID("tok_0123456789abcdef")
)

var root = bytes.Repeat([]byte{1}, 64)

func minted(t *testing.T, caveats ...string) string {
	t.Helper()
	var cs drover.Caveats
	for _, c := range caveats {
		cs = append(cs, drover.ReadCaveat(c))
	}
	text, err := Mint(root, key, id, cs)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func verified(t *testing.T, text string, root []byte) (string, error) {
	t.Helper()
	token, err := Read(text)
	if err != nil {
		return "", err
	}
	if token.Key != key || token.ID != id {
		t.Errorf("%+v", token)
	}
	cs, err := token.Verify(root)
	var texts []string
	for _, c := range cs {
		texts = append(texts, c.String())
	}
	return strings.Join(texts, "; "), err
}

func TestATokenKeepsItsCaveats(t *testing.T) {
	text := minted(t, "app = ledger")
	for _, prefix := range []string{"fm1r_", "fm1a_", "fm2_"} {
		if strings.HasPrefix(text, prefix) || strings.Contains(text, ",") {
			t.Errorf("clients take it for another maker's: %s", text)
		}
	}
	narrow, err := Attenuate(text, drover.Caveats{{Kind: drover.CaveatAllow, Values: []string{"read"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := verified(t, narrow, root); err != nil || got != "app = ledger; allow = read" {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := verified(t, text, root); err != nil || got != "app = ledger" {
		t.Errorf("the first was changed: %s, %v", got, err)
	}
	if _, err := verified(t, text, bytes.Repeat([]byte{2}, 64)); !drover.Is(err, drover.Denied) {
		t.Errorf("another root key: %v", err)
	}
	if _, err := Attenuate(text, drover.Caveats{{Kind: "color", Values: []string{"red"}}}); !drover.Is(err, drover.Invalid) {
		t.Errorf("%v", err)
	}
	many := make(drover.Caveats, maxCaveats)
	for i := range many {
		many[i] = drover.ReadCaveat("app = ledger")
	}
	if _, err := Attenuate(text, many); !drover.Is(err, drover.Invalid) {
		t.Errorf("too many: %v", err)
	}
}

// Whatever bit of a token is turned, it is no token any more, or the same one.
func TestNoTokenIsWidenedByChangingIt(t *testing.T) {
	text := minted(t, "app = ledger", "allow = read")
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, Prefix))
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(data) {
		changed := bytes.Clone(data)
		changed[bit/8] ^= 1 << (bit % 8)
		token, err := Read(Prefix + base64.RawURLEncoding.EncodeToString(changed))
		if err != nil {
			continue
		}
		if _, err := token.Verify(root); err == nil {
			t.Errorf("bit %d of %d may be turned", bit, 8*len(data))
		}
	}
	// A caveat that is taken away, with the rest as it was.
	m := mustMacaroon(t, text)
	bare, err := macaroon.New(root, m.Id(), "", macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := bare.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	copy(raw[len(raw)-32:], m.Signature())
	if _, err := verified(t, Prefix+base64.RawURLEncoding.EncodeToString(raw), root); !drover.Is(err, drover.Denied) {
		t.Errorf("without its caveats: %v", err)
	}
}

func mustMacaroon(t *testing.T, text string) *macaroon.Macaroon {
	t.Helper()
	token, err := Read(text)
	if err != nil {
		t.Fatal(err)
	}
	return token.m
}

func TestThirdPartyCaveatsAreRefused(t *testing.T) {
	m := mustMacaroon(t, minted(t)).Clone()
	if err := m.AddThirdPartyCaveat(root, []byte("prove it"), "https://example.com"); err != nil {
		t.Fatal(err)
	}
	raw, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(Prefix + base64.RawURLEncoding.EncodeToString(raw)); !drover.Is(err, drover.Denied) {
		t.Errorf("%v", err)
	}
}

func FuzzRead(f *testing.F) {
	text, err := Mint(root, key, id, drover.Caveats{drover.ReadCaveat("app = ledger")})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{text, "", Prefix, Prefix + "AgA", text[:len(text)/2], Prefix + strings.Repeat("A", maxText)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := Read(text)
		if err != nil {
			if !drover.Is(err, drover.Denied) {
				t.Errorf("%v", err)
			}
			return
		}
		if cs, err := token.Verify(root); err == nil && (len(cs) == 0 || cs[0].String() != "app = ledger") {
			t.Errorf("a token without its caveat: %q", text)
		}
	})
}
