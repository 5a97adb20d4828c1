package drover

import (
	"strings"
	"time"
)

// TokenID names a token and all that was narrowed from it: "tok_" and 16 lower-case hexadecimal digits. It is no secret.
type TokenID string

// NewTokenID returns a fresh random token ID.
func NewTokenID() TokenID { return TokenID("tok_" + randomHex(16)) }

// Valid reports whether it has the form of a token ID.
func (id TokenID) Valid() bool {
	digits, ok := strings.CutPrefix(string(id), "tok_")
	return ok && len(digits) == 16 && strings.Trim(digits, "0123456789abcdef") == ""
}

// TokenInfo describes a token, never the token itself.
type TokenInfo struct {
	ID   TokenID `json:"id"`
	Name string  `json:"name"`
	// Organization is empty for operators.
	Organization string `json:"organization,omitempty"`
	Operator     bool   `json:"operator,omitempty"`
	// Attenuable tokens can be narrowed by whoever has one.
	Attenuable bool `json:"attenuable"`
	// Caveats are those that the token was made with.
	Caveats   Caveats   `json:"caveats,omitempty"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	// CreatedBy is the token that made it; empty for the first ones.
	CreatedBy TokenID   `json:"created_by,omitempty"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// LastUsedAt is right to about ten minutes.
	LastUsedAt time.Time `json:"last_used_at,omitzero"`
	RevokedAt  time.Time `json:"revoked_at,omitzero"`
	RevokedBy  TokenID   `json:"revoked_by,omitempty"`
	// RevokedWith is the token with which it was revoked: one that it was made from. RevokedMade: what was made from it was revoked with it.
	RevokedWith TokenID `json:"revoked_with,omitempty"`
	RevokedMade bool    `json:"revoked_made,omitempty"`
}

// TokenRoot is the key that the tokens of an organization, or those of operators, are made with. It is never shown, only named.
type TokenRoot struct {
	// Organization is empty for operators.
	Organization string `json:"organization,omitempty"`
	Operator     bool   `json:"operator,omitempty"`
	Key          KeyID  `json:"key"`
	// RotatedAt is when it took the place of another; empty for the first.
	RotatedAt time.Time `json:"rotated_at,omitzero"`
	// Tokens is how many tokens that were made with it are valid.
	Tokens int `json:"tokens"`
	// Retired are those before it that tokens are still taken of.
	Retired []RetiredRoot `json:"retired"`
}

// RetiredRoot is a key that no token is made with any more. Those that were are taken until Until.
type RetiredRoot struct {
	Key    KeyID     `json:"key"`
	Until  time.Time `json:"until"`
	Tokens int       `json:"tokens,omitempty"`
}
