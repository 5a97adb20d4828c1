package drover

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
)

// CheckType is how a health check asks.
type CheckType string

// The check types.
const (
	CheckTCP  CheckType = "tcp"
	CheckHTTP CheckType = "http"
)

// Check is one health check, made inside the guest against a port of the machine.
type Check struct {
	Type CheckType `json:"type"`
	// Port is that of the service when it is left out in a service's check.
	Port int `json:"port,omitempty"`
	// Kind is informational or readiness.
	Kind   string `json:"kind,omitempty"`
	Path   string `json:"path,omitempty"`
	Method string `json:"method,omitempty"`
	// Protocol is http or https. Default: http.
	Protocol      string       `json:"protocol,omitempty"`
	TLSSkipVerify bool         `json:"tls_skip_verify,omitempty"`
	TLSServerName string       `json:"tls_server_name,omitempty"`
	Headers       []HTTPHeader `json:"headers,omitempty"`
	Interval      Duration     `json:"interval,omitempty"`
	Timeout       Duration     `json:"timeout,omitempty"`
	GracePeriod   Duration     `json:"grace_period,omitempty"`
}

// HTTPHeader is a header of a check's request, once for each value.
type HTTPHeader struct {
	Name   string   `json:"name"`
	Values []string `json:"values"`
}

// Service is a port of the machine that is to be reached from outside. Its checks are made as the machine's own are; the rest is for an edge.
type Service struct {
	Protocol     string `json:"protocol,omitempty"`
	InternalPort int    `json:"internal_port,omitempty"`
	// Autostop is off, stop or suspend, or false or true as older clients write off and stop.
	Autostop           Autostop      `json:"autostop,omitempty"`
	Autostart          *bool         `json:"autostart,omitempty"`
	MinMachinesRunning *int          `json:"min_machines_running,omitempty"`
	Ports              []ServicePort `json:"ports,omitempty"`
	Checks             []Check       `json:"checks,omitempty"`
	Concurrency        *Concurrency  `json:"concurrency,omitempty"`
}

// ServicePort is a port, or a range of ports, of the edge.
type ServicePort struct {
	Port       int      `json:"port,omitempty"`
	StartPort  int      `json:"start_port,omitempty"`
	EndPort    int      `json:"end_port,omitempty"`
	Handlers   []string `json:"handlers,omitempty"`
	ForceHTTPS bool     `json:"force_https,omitempty"`
}

// Concurrency is how much one machine is given to do at once.
type Concurrency struct {
	Type      string `json:"type,omitempty"`
	SoftLimit int    `json:"soft_limit,omitempty"`
	HardLimit int    `json:"hard_limit,omitempty"`
}

// Autostop is what becomes of a machine that nobody asks anything of: one of off, stop, suspend, or a boolean. It is kept as it was written.
type Autostop string

// UnmarshalJSON reads a word or a boolean.
func (a *Autostop) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	switch string(b) {
	case "true", "false", `"off"`, `"stop"`, `"suspend"`:
		*a = Autostop(b)
		return nil
	}
	return fmt.Errorf("%s is none of \"off\", \"stop\", \"suspend\", true, false", b)
}

// MarshalJSON writes what was read.
func (a Autostop) MarshalJSON() ([]byte, error) {
	if a == "" {
		return []byte("null"), nil
	}
	return json.RawMessage(a).MarshalJSON()
}

// AllChecks returns the machine's own checks, and those of its services under the names that clients know: servicecheck-NN-TYPE-PORT, NN
// counted over all of them.
func (c MachineConfig) AllChecks() map[string]Check {
	all := maps.Clone(c.Checks)
	n := 0
	for _, s := range c.Services {
		for _, check := range s.Checks {
			if check.Port == 0 {
				check.Port = s.InternalPort
			}
			if all == nil {
				all = map[string]Check{}
			}
			all[fmt.Sprintf("servicecheck-%02d-%s-%d", n, check.Type, check.Port)] = check
			n++
		}
	}
	return all
}
