package api

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"drover"
	"drover/fleet"
)

// TokenBackend is the part of Backend about who asks, what for, and the trail of it.
type TokenBackend interface {
	// Authenticate tells whose token it is, with the caveats that hold for it; Denied for one that is not known, genuine, or valid now, with whose it
	// was if that is certain.
	Authenticate(ctx context.Context, token string) (fleet.Principal, error)
	// MintToken returns the token itself, which cannot be read again.
	MintToken(ctx context.Context, req fleet.NewToken) (drover.TokenInfo, string, error)
	// Tokens lists the tokens of an organization, newest first; all with an empty one.
	Tokens(ctx context.Context, organization string) ([]drover.TokenInfo, error)
	Token(ctx context.Context, id drover.TokenID, organization string) (drover.TokenInfo, error)
	RevokeToken(ctx context.Context, req fleet.RevokeToken) (drover.TokenInfo, error)
	// TokenRoots lists what tokens of an organization are made with; all with an empty one. RotateRoot is NotFound where there is none.
	TokenRoots(ctx context.Context, organization string) ([]drover.TokenRoot, error)
	RotateRoot(ctx context.Context, req fleet.RotateRoot) (drover.TokenRoot, error)

	// AuditBegin is durable when it returns. AuditNote returns at once, and may lose the entry, which is counted then.
	AuditBegin(ctx context.Context, entry drover.AuditEntry) error
	AuditNote(entry drover.AuditEntry)
	// AuditEntries returns one entry per request, newest first.
	AuditEntries(ctx context.Context, filter drover.AuditFilter) ([]drover.AuditEntry, error)
}

// maxTokens bounds how many tokens one request may show.
const maxTokens = 8

// Guard is the one check of tokens and the one way into the audit trail, for every door of a control host. Safe for concurrent use.
type Guard struct {
	backend TokenBackend
	now     func() time.Time
}

// NewGuard returns a Guard. Now nil is the system's clock.
func NewGuard(backend TokenBackend, now func() time.Time) *Guard {
	if now == nil {
		now = time.Now
	}
	return &Guard{backend: backend, now: now}
}

// Identify returns whose tokens the request shows: one at least, in the request's order. What it refuses gets 401; with it comes whose tokens those
// were that are known, which are good for nothing but the trail.
func (g *Guard) Identify(r *http.Request) ([]fleet.Principal, error) {
	tokens, err := bearer(r.Header.Get("Authorization"))
	if err != nil {
		return nil, err
	}
	var who, past []fleet.Principal
	var refused error
	for _, token := range tokens {
		p, err := g.backend.Authenticate(r.Context(), token)
		switch {
		case err == nil:
			who = append(who, p)
		case !drover.Is(err, drover.Denied):
			return nil, err
		default:
			if p.Token != "" {
				past = append(past, p)
			}
			if refused == nil {
				refused = unauthorized(drover.AsError(err).Text)
			}
		}
	}
	if len(who) == 0 {
		return past, refused
	}
	return who, nil
}

// Permission is what a principal must be and be allowed.
type Permission struct {
	// Operators: only operators may.
	Operators bool
	drover.Need
}

// Allow returns nil when the principal may do what is needed, and Denied, which gets 403, with the reason otherwise. Whether the principal may see
// the app that it is about is another question: MaySee.
func (g *Guard) Allow(p fleet.Principal, need Permission) error {
	if need.Operators && !p.Operator {
		return drover.Errorf(drover.Denied, "the operator API is not for the token of organization %q", p.Organization).WithHint("use an operator's token")
	}
	return p.Limits.Check(need.Need)
}

// MaySee reports whether a principal may know that an app exists.
func MaySee(p fleet.Principal, app drover.App) bool {
	ours := p.Operator || (p.Organization != "" && p.Organization == app.Organization)
	return ours && p.Limits.Sees(app.Name, "")
}

// Need describes a request for Allow.
func (g *Guard) Need(r *http.Request, action drover.Action, app drover.AppName, machine drover.MachineID, wide bool) drover.Need {
	return drover.Need{Action: action, App: app, Machine: machine, Wide: wide, Source: sourceOf(r), At: g.now()}
}

// sourceOf is where the request comes from; the zero address when that cannot be told.
func sourceOf(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

// Attempt is an entry of the audit trail on its way. Organization is that of the app if there is one, else the principal's.
func (g *Guard) Attempt(r *http.Request, request, route string, p fleet.Principal, app drover.App, object string) drover.AuditEntry {
	e := drover.AuditEntry{At: g.now().UTC(), Request: request, Token: p.Token, Name: p.Name, Operator: p.Operator, Organization: p.Organization,
		App: app.Name, Object: object, Method: r.Method, Route: route, Outcome: drover.AuditBegun}
	if app.Organization != "" {
		e.Organization = app.Organization
	}
	if at := sourceOf(r); at.IsValid() {
		e.Source = at.String()
	}
	return e
}

// Begin writes that a change is attempted, before it is: what is acknowledged later is in the trail whatever happens. Unavailable when the trail takes
// nothing now; then nothing may be changed.
func (g *Guard) Begin(ctx context.Context, attempt drover.AuditEntry) error {
	if err := g.backend.AuditBegin(ctx, attempt); err != nil {
		return drover.Errorf(drover.Unavailable, "nothing was done: the audit trail does not take the entry: %w", err).WithHint("ask again in a moment")
	}
	return nil
}

// End notes how an attempt went, without waiting.
func (g *Guard) End(attempt drover.AuditEntry, status int, err error) {
	attempt.Outcome, attempt.Status = drover.AuditDone, status
	if err != nil {
		attempt.Outcome, attempt.Code = drover.AuditFailed, drover.CodeOf(err)
	}
	g.backend.AuditNote(attempt)
}

// Refuse notes an attempt that the token does not allow, without waiting.
func (g *Guard) Refuse(attempt drover.AuditEntry, status int, err error) {
	attempt.Outcome, attempt.Status, attempt.Code = drover.AuditRefused, status, drover.CodeOf(err)
	g.backend.AuditNote(attempt)
}

// foreign are the beginnings of tokens of other makers, which clients send along.
var foreign = [...]string{"fm1r_", "fm1a_", "fm2_"}

// bearer reads an Authorization header: "Bearer X", or "FlyV1 X" as some clients write it; X may be several tokens with commas between.
func bearer(header string) ([]string, error) {
	if header == "" {
		return nil, unauthorized("the request has no Authorization header")
	}
	scheme, rest, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "FlyV1") {
		return nil, unauthorized("the Authorization header has a scheme other than Bearer")
	}
	var tokens []string
	others := 0
	for token := range strings.SplitSeq(rest, ",") {
		token = strings.TrimSpace(token)
		if scheme, rest, ok := strings.Cut(token, " "); ok && strings.EqualFold(scheme, "FlyV1") {
			token = strings.TrimSpace(rest) // pasted with its scheme
		}
		switch {
		case token == "":
		case strings.HasPrefix(token, foreign[0]), strings.HasPrefix(token, foreign[1]), strings.HasPrefix(token, foreign[2]):
			others++
		default:
			tokens = append(tokens, token)
		}
	}
	switch {
	case len(tokens) > maxTokens:
		return nil, unauthorized("the Authorization header has too many tokens")
	case len(tokens) == 0 && others > 0:
		return nil, unauthorized("the Authorization header has tokens of another maker only")
	case len(tokens) == 0:
		return nil, unauthorized("the Authorization header has no token")
	}
	return tokens, nil
}

func unauthorized(text string) error {
	return withStatus(http.StatusUnauthorized, drover.Errorf(drover.Denied, "not authenticated: %s", text).
		WithHint("give a token of this fleet: --token or DROVER_API_TOKEN for drover, the header 'Authorization: Bearer TOKEN' otherwise"))
}
