package drover

import (
	"net/netip"
	"time"
)

// AppPolicies are the network policies of an app.
type AppPolicies struct {
	App      AppName         `json:"app"`
	Policies []NetworkPolicy `json:"policies"`
}

// NetworkPolicy says what machines of an app may receive and send in their private network. Policies add up: what one allows is allowed.
type NetworkPolicy struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Selector says for which machines of the app it is.
	Selector PolicySelector `json:"selector"`
	// Rules: a direction that has one is closed but for what rules allow; a direction without is open.
	Rules     []PolicyRule `json:"rules"`
	CreatedAt time.Time    `json:"created_at"`
	UpdatedAt time.Time    `json:"updated_at"`
}

// NewPolicyID returns a fresh random ID of a network policy: "np_" and 16 lower-case hexadecimal digits.
func NewPolicyID() string { return "np_" + randomHex(16) }

// PolicySelector selects machines of an app: all, or those that have every label.
type PolicySelector struct {
	All      bool              `json:"all,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// The words of a rule.
const (
	PolicyAllow   = "allow"
	PolicyDeny    = "deny"
	PolicyIngress = "ingress"
	PolicyEgress  = "egress"
)

// PolicyRule allows or denies what is to one of the ports and, if there are peers, from or to one of them. What is denied is denied whatever else allows it.
type PolicyRule struct {
	Action    string `json:"action"`
	Direction string `json:"direction"`
	// Ports are those at the end that is asked: the machine's for ingress, the other's for egress. Empty means every packet.
	Ports []PolicyPort `json:"ports,omitempty"`
	// Peers are the other ends; empty means all of the network.
	Peers []PolicyPeer `json:"peers,omitempty"`
}

// PolicyPort is a protocol (tcp, udp, icmp) with a port, or several in a row; no port means all of them.
type PolicyPort struct {
	Protocol string `json:"protocol"`
	Port     int    `json:"port,omitempty"`
	EndPort  int    `json:"end_port,omitempty"`
}

// PolicyPeer is an app of the same network, or a prefix of addresses: one of the two.
type PolicyPeer struct {
	App  AppName `json:"app,omitempty"`
	CIDR string  `json:"cidr,omitempty"`
}

// MachinePolicy is what holds for one machine, worked out. A side that is nil is open.
type MachinePolicy struct {
	Ingress *PolicySide `json:"ingress,omitempty"`
	Egress  *PolicySide `json:"egress,omitempty"`
}

// Open reports whether nothing is closed.
func (p MachinePolicy) Open() bool { return p.Ingress == nil && p.Egress == nil }

// PolicySide is a direction that is closed but for what is allowed and not denied.
type PolicySide struct {
	Deny  []PolicyMatch `json:"deny,omitempty"`
	Allow []PolicyMatch `json:"allow,omitempty"`
}

// PolicyMatch matches packets. Protocol is an IP protocol number, 0 for any; LastPort 0 means every port. Without Anybody it matches what has to do with one of the peers.
type PolicyMatch struct {
	Protocol  byte           `json:"protocol,omitempty"`
	FirstPort uint16         `json:"first_port,omitempty"`
	LastPort  uint16         `json:"last_port,omitempty"`
	Anybody   bool           `json:"anybody,omitempty"`
	Peers     []netip.Prefix `json:"peers,omitempty"`
}
