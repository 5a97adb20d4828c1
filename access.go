package drover

import (
	"net/netip"
	"slices"
	"time"
)

// Action is a class of what somebody does with a token. Every route of the API names one.
type Action string

// The actions.
const (
	// ActSelf: learn about the token itself. Every token may.
	ActSelf Action = "self"
	// ActFind: show apps and machines, and wait for them: what is needed to get at a machine by its name.
	ActFind Action = "find"
	// ActRead: read everything else that there is to read, but logs.
	ActRead Action = "read"
	// ActLogs: read what machines write.
	ActLogs Action = "logs"
	// ActDeploy: change machines, volumes, secrets and releases of an app.
	ActDeploy Action = "deploy"
	// ActExec: run commands in machines.
	ActExec Action = "exec"
	// ActApps: make and delete apps, and change what holds for an app as a whole.
	ActApps Action = "apps"
	// ActTokens: make, list and revoke tokens.
	ActTokens Action = "tokens"
	// ActAudit: read the audit trail.
	ActAudit Action = "audit"
	// ActOperate: change hosts, moves, drains and the like.
	ActOperate Action = "operate"
)

// Actions lists every action.
var Actions = []Action{ActSelf, ActFind, ActRead, ActLogs, ActDeploy, ActExec, ActApps, ActTokens, ActAudit, ActOperate}

// allows says what each value of a caveat of the kind "allow" lets through.
var allows = map[string][]Action{
	"read":   {ActFind, ActRead, ActLogs, ActAudit},
	"deploy": {ActFind, ActRead, ActLogs, ActDeploy},
	"exec":   {ActFind, ActExec},
	"logs":   {ActFind, ActLogs},
}

// AllowValues lists the values of a caveat of the kind "allow".
func AllowValues() []string { return []string{"read", "deploy", "exec", "logs"} }

// Need is what a request does, and what it is about: what caveats are held against.
type Need struct {
	// Action empty is one that no class has: tokens that are limited to classes do not allow it.
	Action Action
	// App and Machine are what the request is about; empty when it is about none in particular.
	App     AppName
	Machine MachineID
	// Wide says that the answer shows only what the token may see: caveats about apps and machines hold inside the answer.
	Wide bool
	// Source is where the request comes from.
	Source netip.Addr
	At     time.Time
}

// permits reports whether a class of actions lets an action through.
func permits(class string, action Action) bool {
	return action == ActSelf || slices.Contains(allows[class], action)
}
