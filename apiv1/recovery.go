package apiv1

import "drover"

// ConfirmOffRequest fences a host: by a person's word that it is off and stays so, or by the power command.
type ConfirmOffRequest struct {
	// Reason says how it is known that the host is off, or why it is switched off. It is kept with the name of whoever says it.
	Reason string `json:"reason"`
}

// RecoveryRequest asks for the machines of a fenced host, or one of them, to be started elsewhere.
type RecoveryRequest struct {
	// Machine is one machine; Host all those of a host. Give one of the two.
	Machine string `json:"machine,omitempty"`
	Host    string `json:"host,omitempty"`
	// AcceptAge is how old the copies of volumes may be. Default: 24h.
	AcceptAge drover.Duration `json:"accept_age,omitempty"`
}

// RecoveryStarted is what was begun, and what was left with the reason.
type RecoveryStarted struct {
	Recoveries []drover.Recovery        `json:"recoveries"`
	Left       []drover.PlannedRecovery `json:"left"`
}

// RecoveryPolicyRequest sets what an app agrees to for the time after the death of a host.
type RecoveryPolicyRequest struct {
	// Recovery is "ask" or "automatic".
	Recovery string `json:"recovery"`
}

// CreateStandbyRequest asks for a copy of a volume on another host that follows it.
type CreateStandbyRequest struct {
	Host   string `json:"host,omitempty"`
	Region string `json:"region,omitempty"`
	// Every is how often a step is made. Default: 60s.
	Every drover.Duration `json:"every,omitempty"`
}
