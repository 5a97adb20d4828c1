package macaroons

import (
	"encoding/base64"
	"strings"

	"gopkg.in/macaroon.v2"

	"drover"
)

// Prefix begins the text of every token. It is none of those by which clients of the Machines API know tokens of another maker.
const Prefix = "drvm_"

const (
	// identifier begins the identifier of a macaroon of this fleet's making.
	identifier = "drover/1"
	// maxText bounds a token, so that it fits into a header; maxCaveats bounds the work of checking it.
	maxText    = 16 << 10
	maxCaveats = 128
)

// Token is a token as it was read: whose it is, is not known before Verify.
type Token struct {
	m *macaroon.Macaroon
	// Key is the root key that it claims to be made with, ID the token's own.
	Key drover.KeyID
	ID  drover.TokenID
}

// Is reports whether a text looks like a token of this package.
func Is(text string) bool { return strings.HasPrefix(text, Prefix) }

// Mint makes a token with a root key.
func Mint(root []byte, key drover.KeyID, id drover.TokenID, caveats drover.Caveats) (string, error) {
	m, err := macaroon.New(root, []byte(strings.Join([]string{identifier, string(key), string(id)}, " ")), "", macaroon.V2)
	if err != nil {
		return "", drover.Errorf(drover.Internal, "cannot make a token: %w", err)
	}
	return narrow(m, caveats)
}

// Attenuate returns a token that is narrower by the caveats. It needs no key, and tells nobody.
func Attenuate(text string, caveats drover.Caveats) (string, error) {
	t, err := Read(text)
	if err != nil {
		return "", err
	}
	return narrow(t.m.Clone(), caveats)
}

func narrow(m *macaroon.Macaroon, caveats drover.Caveats) (string, error) {
	for _, c := range caveats {
		if err := c.Valid(); err != nil {
			return "", err
		}
		if err := m.AddFirstPartyCaveat([]byte(c.String())); err != nil {
			return "", drover.Errorf(drover.Internal, "cannot add caveat %q: %w", c, err)
		}
	}
	data, err := m.MarshalBinary()
	if err != nil {
		return "", drover.Errorf(drover.Internal, "cannot write a token: %w", err)
	}
	text := Prefix + base64.RawURLEncoding.EncodeToString(data)
	if len(text) > maxText || len(m.Caveats()) > maxCaveats {
		return "", drover.Errorf(drover.Invalid, "the token has %d caveats and %d bytes; %d and %d are the most", len(m.Caveats()), len(text), maxCaveats, maxText)
	}
	return text, nil
}

// Read reads a token's text. Denied when it is not one.
func Read(text string) (*Token, error) {
	bad := func(why string) error { return drover.Errorf(drover.Denied, "the token is damaged: %s", why) }
	encoded, ok := strings.CutPrefix(text, Prefix)
	if !ok || len(text) > maxText {
		return nil, bad("it does not begin with " + Prefix + ", or is too long")
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, bad("it is not URL-safe base64 after its beginning")
	}
	var m macaroon.Macaroon
	if len(data) == 0 || data[0] != 2 || m.UnmarshalBinary(data) != nil {
		return nil, bad("it does not hold a macaroon of version 2")
	}
	words := strings.Split(string(m.Id()), " ")
	if len(words) != 3 || words[0] != identifier || !drover.KeyID(words[1]).Valid() || !drover.TokenID(words[2]).Valid() {
		return nil, bad("it was not made by Drover")
	}
	if len(m.Caveats()) > maxCaveats {
		return nil, bad("it has too many caveats")
	}
	for _, c := range m.Caveats() {
		if len(c.VerificationId) > 0 {
			return nil, bad("it has a caveat of a third party")
		}
	}
	return &Token{m: &m, Key: drover.KeyID(words[1]), ID: drover.TokenID(words[2])}, nil
}

// Caveats returns the caveats as the token has them, checked by nobody.
func (t *Token) Caveats() drover.Caveats {
	var cs drover.Caveats
	for _, c := range t.m.Caveats() {
		cs = append(cs, drover.ReadCaveat(string(c.Id)))
	}
	return cs
}

// Verify returns the token's caveats. Denied unless it was made with the root key and nothing was taken away from it since.
func (t *Token) Verify(root []byte) (drover.Caveats, error) {
	if _, err := t.m.VerifySignature(root, nil); err != nil {
		return nil, drover.Errorf(drover.Denied, "the token is not genuine: it was not made by this fleet, or changed since")
	}
	return t.Caveats(), nil
}
