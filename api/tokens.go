package api

import (
	"net/http"
	"strconv"
	"time"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

func tokenRoutes() []route {
	const one = "/tokens/{token_id}"
	foreign := func(path, id, summary string) route {
		return route{method: "POST", path: path, id: id, summary: summary + ": this fleet makes none, and refuses", access: tenants,
			status: http.StatusUnprocessableEntity, response: apiv1.ErrorResponse{}, handle: (*handler).refuseForeignTokens}
	}
	return []route{
		foreign("/tokens/oidc", "Tokens_request_OIDC", "Make a token by which a machine proves to others who it is"),
		foreign("/tokens/kms", "Tokens_request_Kms", "Make a token for a store of keys"),
		{method: "GET", path: "/whoami", id: "Whoami", summary: "Tell whose token this is, and what limits it", access: tenants,
			status: http.StatusOK, response: apiv1.Whoami{}, handle: (*handler).whoami},
		{method: "GET", path: "/tokens", id: "Tokens_list", summary: "List the tokens of the organization, newest first; for operators all", access: tenants,
			query:  []param{{"org_slug", "string", "only those of the organization"}},
			status: http.StatusOK, response: []drover.TokenInfo{}, handle: (*handler).listTokens},
		{method: "POST", path: "/tokens", id: "Tokens_create", summary: "Make a token; what limits the token that asks limits it too", access: tenants,
			request: apiv1.CreateTokenRequest{}, status: http.StatusCreated, response: apiv1.CreatedToken{}, handle: (*handler).createToken},
		{method: "GET", path: one, id: "Tokens_show", summary: "Describe a token", access: tenants,
			status: http.StatusOK, response: drover.TokenInfo{}, handle: (*handler).showToken},
		{method: "DELETE", path: one, id: "Tokens_revoke", access: tenants,
			summary: "Revoke a token, all that was narrowed from it and all that were made from it, everywhere within 5 s",
			query:   []param{{"keep_made", "boolean", "leave the tokens valid that were made from it"}},
			status:  http.StatusOK, response: drover.TokenInfo{}, handle: (*handler).revokeToken},
		{method: "GET", path: "/token-roots", id: "Tokenroots_list", summary: "List the keys that tokens are made with", access: tenants,
			query:  []param{{"org_slug", "string", "only that of the organization"}},
			status: http.StatusOK, response: []drover.TokenRoot{}, handle: (*handler).listTokenRoots},
		{method: "POST", path: "/token-roots/rotate", id: "Tokenroots_rotate", access: tenants,
			summary: "Make tokens with a new key; those of the one before are refused at once, or after a grace",
			request: apiv1.RotateRootRequest{}, status: http.StatusOK, response: drover.TokenRoot{}, handle: (*handler).rotateTokenRoot},
		{method: "GET", path: "/audit", id: "Audit_list", summary: "List who changed what, and who was refused, newest first", access: tenants,
			query: []param{{"app", "string", "only what concerns the app"}, {"token", "string", "only what was asked with the token"},
				{"org_slug", "string", "only what concerns the organization; for operators"},
				{"since", "string", "only what is younger: a time, or a span such as 24h; default 24h"}, {"limit", "integer", "so many at most; default 100, most 1000"}},
			status: http.StatusOK, response: []drover.AuditEntry{}, handle: (*handler).listAudit},
	}
}

func (h *handler) refuseForeignTokens(*call) (any, error) {
	return nil, unsupported(drover.Errorf(drover.Precondition, "this fleet makes no tokens for others than itself").
		WithHint("give the machine what it is to prove itself with as a secret: 'drover secrets set NAME=VALUE'"))
}

func (h *handler) whoami(c *call) (any, error) {
	p := c.principal
	return apiv1.Whoami{Token: p.Token, Name: p.Name, Organization: p.Organization, Operator: p.Operator, Caveats: p.Limits, ExpiresAt: p.Limits.ExpiresAt()}, nil
}

// ownOrganization is the organization that the principal is kept to; empty for operators. asked narrows an operator's view.
func ownOrganization(p fleet.Principal, asked string) (string, error) {
	if err := needName("org_slug", asked, true); err != nil {
		return "", err
	}
	if p.Operator {
		return asked, nil
	}
	if p.Organization == "" || (asked != "" && asked != p.Organization) {
		return "", drover.Errorf(drover.Denied, "org_slug is %q, and the token is of organization %q", asked, p.Organization).WithField("org_slug")
	}
	return p.Organization, nil
}

func (h *handler) listTokens(c *call) (any, error) {
	org, err := ownOrganization(c.principal, c.r.URL.Query().Get("org_slug"))
	if err != nil {
		return nil, err
	}
	return h.backend.Tokens(c.ctx(), org)
}

func (h *handler) createToken(c *call) (any, error) {
	var req apiv1.CreateTokenRequest
	if err := readStrict(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	order := fleet.NewToken{Name: req.Name, Organization: req.OrgSlug, Operator: req.Operator, Caveats: req.Caveats, By: c.principal}
	for i, caveat := range req.Caveats {
		if err := caveat.Valid(); err != nil {
			return nil, drover.AsError(err).WithField("caveats[" + strconv.Itoa(i) + "]")
		}
		if caveat.Kind != drover.CaveatApp {
			continue
		}
		for _, name := range caveat.Values {
			app, err := h.findApp(c, name)
			if err != nil {
				return nil, err
			}
			if order.Organization == "" && !req.Operator {
				order.Organization = app.Organization
			}
			if !req.Operator && app.Organization != order.Organization {
				return nil, drover.Errorf(drover.Invalid, "app %q is not of organization %q", name, order.Organization).WithField("caveats[" + strconv.Itoa(i) + "]")
			}
		}
	}
	if !c.principal.Operator && req.Operator {
		return nil, drover.Errorf(drover.Denied, "only an operator's token makes operators' tokens").WithField("operator")
	}
	if order.Organization == "" && !req.Operator {
		if c.principal.Operator {
			return nil, drover.Errorf(drover.Invalid, "org_slug is missing: whose token is it to be?").WithField("org_slug")
		}
		order.Organization = c.principal.Organization
	}
	if _, err := ownOrganization(c.principal, order.Organization); err != nil {
		return nil, err
	}
	info, token, err := h.backend.MintToken(c.ctx(), order)
	if err != nil {
		return nil, err
	}
	return apiv1.CreatedToken{TokenInfo: info, Token: token}, nil
}

// tokenOf returns the token that the path names, and the organization that the principal is kept to.
func (h *handler) tokenOf(c *call) (drover.TokenID, string, error) {
	org, err := ownOrganization(c.principal, "")
	return drover.TokenID(c.r.PathValue("token_id")), org, err
}

func (h *handler) showToken(c *call) (any, error) {
	id, org, err := h.tokenOf(c)
	if err != nil {
		return nil, err
	}
	return h.backend.Token(c.ctx(), id, org)
}

func (h *handler) revokeToken(c *call) (any, error) {
	id, org, err := h.tokenOf(c)
	if err != nil {
		return nil, err
	}
	keep, err := queryBool(c.r.URL.Query(), "keep_made")
	if err != nil {
		return nil, err
	}
	return h.backend.RevokeToken(c.ctx(), fleet.RevokeToken{Token: id, Organization: org, KeepMade: keep, By: c.principal})
}

func (h *handler) listTokenRoots(c *call) (any, error) {
	org, err := ownOrganization(c.principal, c.r.URL.Query().Get("org_slug"))
	if err != nil {
		return nil, err
	}
	return h.backend.TokenRoots(c.ctx(), org)
}

func (h *handler) rotateTokenRoot(c *call) (any, error) {
	var req apiv1.RotateRootRequest
	if err := readStrict(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	order := fleet.RotateRoot{Operator: req.Operator, Grace: time.Duration(req.Grace), By: c.principal}
	switch {
	case req.Operator && req.OrgSlug != "":
		return nil, drover.Errorf(drover.Invalid, "org_slug is %q, and operator is true: a root key is of one organization, or of operators", req.OrgSlug).WithField("org_slug")
	case req.Operator && !c.principal.Operator:
		return nil, drover.Errorf(drover.Denied, "only an operator's token rotates the root key of operators").WithField("operator")
	case !req.Operator:
		org, err := ownOrganization(c.principal, req.OrgSlug)
		if err != nil {
			return nil, err
		}
		if org == "" {
			return nil, drover.Errorf(drover.Invalid, "org_slug is missing: whose root key?").WithField("org_slug")
		}
		order.Organization = org
	}
	return h.backend.RotateRoot(c.ctx(), order)
}

// The bounds of a page of the audit trail.
const (
	defaultAudit      = 100
	maxAudit          = 1000
	defaultAuditSince = 24 * time.Hour
)

func (h *handler) listAudit(c *call) (any, error) {
	query := c.r.URL.Query()
	org, err := ownOrganization(c.principal, query.Get("org_slug"))
	if err != nil {
		return nil, err
	}
	filter := drover.AuditFilter{Organization: org, App: drover.AppName(query.Get("app")), Token: drover.TokenID(query.Get("token")), Limit: defaultAudit}
	if err := needName("app", string(filter.App), true); err != nil {
		return nil, err
	}
	if filter.Token != "" && !filter.Token.Valid() {
		return nil, drover.Errorf(drover.Invalid, "token is %q; expected the ID of a token, not a token", filter.Token).WithField("token")
	}
	if text := query.Get("limit"); text != "" {
		if filter.Limit, err = strconv.Atoi(text); err != nil || filter.Limit < 1 || filter.Limit > maxAudit {
			return nil, drover.Errorf(drover.Invalid, "limit is %q; expected 1 to %d", text, maxAudit).WithField("limit")
		}
	}
	if filter.Since, err = h.since(query.Get("since")); err != nil {
		return nil, err
	}
	entries, err := h.backend.AuditEntries(c.ctx(), filter)
	if err != nil {
		return nil, err
	}
	seen := []drover.AuditEntry{}
	for _, e := range entries {
		if c.principal.Limits.Sees(e.App, drover.MachineID(e.Object)) {
			seen = append(seen, e)
		}
	}
	return seen, nil
}

// since reads a time, or how long ago it was.
func (h *handler) since(text string) (time.Time, error) {
	if text == "" {
		return h.now().Add(-defaultAuditSince), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	span, err := time.ParseDuration(text)
	if err != nil || span <= 0 {
		return time.Time{}, drover.Errorf(drover.Invalid, "since is %q; expected a time such as 2030-01-31T12:00:00Z, or a span such as 24h", text).WithField("since")
	}
	return h.now().Add(-span), nil
}
