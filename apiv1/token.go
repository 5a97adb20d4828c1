package apiv1

import (
	"time"

	"drover"
)

// CreateTokenRequest asks for a token. It is of the organization, or an operator's; where it is for apps, their organization need not be named.
type CreateTokenRequest struct {
	Name     string `json:"name"`
	OrgSlug  string `json:"org_slug,omitempty"`
	Operator bool   `json:"operator,omitempty"`
	// Caveats limit the token, such as "app = ledger", "allow = deploy", "expires = 2030-01-31T12:00:00Z".
	Caveats drover.Caveats `json:"caveats,omitempty"`
}

// CreatedToken is the answer: the only one that has the token itself.
type CreatedToken struct {
	drover.TokenInfo
	Token string `json:"token"`
}

// RotateRootRequest asks for a new key to make an organization's tokens with, or operators'. Grace is how long tokens of the old key are taken: left out,
// they are refused at once.
type RotateRootRequest struct {
	OrgSlug  string          `json:"org_slug,omitempty"`
	Operator bool            `json:"operator,omitempty"`
	Grace    drover.Duration `json:"grace,omitempty"`
}

// Whoami says whose token a request had.
type Whoami struct {
	Token        drover.TokenID `json:"token_id,omitempty"`
	Name         string         `json:"name"`
	Organization string         `json:"organization,omitempty"`
	Operator     bool           `json:"operator,omitempty"`
	Caveats      drover.Caveats `json:"caveats,omitempty"`
	ExpiresAt    time.Time      `json:"expires_at,omitzero"`
}
