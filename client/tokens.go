package client

import (
	"context"
	"net/url"
	"strconv"

	"drover"
	"drover/apiv1"
)

const tokenPath = "/tokens/%s"

// Whoami tells whose token the client has.
func (c *Client) Whoami(ctx context.Context) (apiv1.Whoami, error) {
	return get[apiv1.Whoami](ctx, c, nil, "/whoami")
}

// CreateToken makes a token. The answer is the only one that has it.
func (c *Client) CreateToken(ctx context.Context, req apiv1.CreateTokenRequest) (apiv1.CreatedToken, error) {
	return post[apiv1.CreatedToken](ctx, c, req, "/tokens")
}

// Tokens lists the tokens of the organization, newest first; of all that the client's token may see when it is empty.
func (c *Client) Tokens(ctx context.Context, organization string) ([]drover.TokenInfo, error) {
	return get[[]drover.TokenInfo](ctx, c, ofOrganization(organization), "/tokens")
}

// Token describes a token.
func (c *Client) Token(ctx context.Context, id drover.TokenID) (drover.TokenInfo, error) {
	return get[drover.TokenInfo](ctx, c, nil, tokenPath, id)
}

// RevokeToken revokes a token and all that was narrowed from it; also all that were made from it, unless they are to be kept.
func (c *Client) RevokeToken(ctx context.Context, id drover.TokenID, keepMade bool) (drover.TokenInfo, error) {
	query := url.Values{}
	if keepMade {
		query.Set("keep_made", "true")
	}
	return remove[drover.TokenInfo](ctx, c, query, tokenPath, id)
}

// TokenRoots lists the keys that tokens are made with: of all organizations that the client's token may see when it is empty.
func (c *Client) TokenRoots(ctx context.Context, organization string) ([]drover.TokenRoot, error) {
	query := url.Values{}
	if organization != "" {
		query.Set("org_slug", organization)
	}
	return get[[]drover.TokenRoot](ctx, c, query, "/token-roots")
}

// RotateTokenRoot makes tokens with a new key from now on; those of the one before are refused at once, or after the grace.
func (c *Client) RotateTokenRoot(ctx context.Context, req apiv1.RotateRootRequest) (drover.TokenRoot, error) {
	return post[drover.TokenRoot](ctx, c, req, "/token-roots/rotate")
}

// AuditQuery selects entries of the audit trail; what is empty is not asked for. Since is a time, or a span such as "24h".
type AuditQuery struct {
	Organization string
	App          drover.AppName
	Token        drover.TokenID
	Since        string
	Limit        int
}

// Audit lists entries of the audit trail, newest first.
func (c *Client) Audit(ctx context.Context, q AuditQuery) ([]drover.AuditEntry, error) {
	query := url.Values{}
	for name, value := range map[string]string{"org_slug": q.Organization, "app": string(q.App), "token": string(q.Token), "since": q.Since} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if q.Limit != 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	return get[[]drover.AuditEntry](ctx, c, query, "/audit")
}
