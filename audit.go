package drover

import "time"

// Outcome words of an audit entry.
const (
	// AuditBegun: nothing is known of how it ended; the control host ended before it could tell.
	AuditBegun = "begun"
	// AuditDone: it was done. AuditFailed: it was not, for a reason other than the token. AuditRefused: the token does not allow it.
	AuditDone    = "done"
	AuditFailed  = "failed"
	AuditRefused = "refused"
)

// AuditEntry is one attempt to change something, to run something in a machine, or to do what is not allowed. It has no value of a request.
type AuditEntry struct {
	At      time.Time `json:"at"`
	Request string    `json:"request_id"`
	// Token and Name are who; empty when the token is not known.
	Token    TokenID `json:"token,omitempty"`
	Name     string  `json:"name,omitempty"`
	Operator bool    `json:"operator,omitempty"`
	// Organization is that of the app, or else that of the token.
	Organization string  `json:"organization,omitempty"`
	App          AppName `json:"app,omitempty"`
	// Object is what it was done to: the ID of a machine, volume, host, and the like.
	Object string `json:"object,omitempty"`
	Method string `json:"method"`
	// Route is the operation's ID in the API's document.
	Route   string `json:"route"`
	Source  string `json:"source,omitempty"`
	Outcome string `json:"outcome"`
	Status  int    `json:"status,omitempty"`
	Code    Code   `json:"code,omitempty"`
	// Host is the control host that was asked.
	Host HostID `json:"host,omitempty"`
}

// AuditFilter selects entries; what is empty selects all.
type AuditFilter struct {
	Organization string
	App          AppName
	Token        TokenID
	Since        time.Time
	// Limit is how many of the newest are wanted.
	Limit int
}

// AuditHealth counts what the trail of one control host did not take.
type AuditHealth struct {
	Written uint64
	// Dropped were lost: outcomes and refusals, never the fact that a change was begun.
	Dropped uint64
	// Suppressed are refusals of tokens that nobody knows, beyond what is noted per second.
	Suppressed uint64
	Pending    int
}
