package apiv1

import "drover"

// NetworkPolicyRequest makes a network policy of an app, or replaces the one of its name.
type NetworkPolicyRequest struct {
	Name     string                `json:"name"`
	Selector drover.PolicySelector `json:"selector"`
	Rules    []drover.PolicyRule   `json:"rules"`
}
