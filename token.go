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
}
