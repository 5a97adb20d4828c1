package fleet

import (
	"fmt"
	"slices"
	"strings"

	"drover"
)

// Limits of a machine's services.
const (
	maxServices = 50
	maxPorts    = 100
	maxChecks   = 50
	maxHeaders  = 30
)

// checkServices checks the services of a machine, and that it does not have too many checks in all.
func checkServices(p *problems, c drover.MachineConfig) {
	if len(c.Services) > maxServices {
		p.add("config.services", "%d are too many: at most %d", len(c.Services), maxServices)
	}
	if n := len(c.AllChecks()); n > maxChecks {
		p.add("config.checks", "%d checks are too many, with those of services: at most %d", n, maxChecks)
	}
	for i, s := range c.Services {
		at := fmt.Sprintf("config.services[%d]", i)
		if !slices.Contains([]string{"", "tcp", "udp"}, s.Protocol) {
			p.add(at+".protocol", "%q is unknown: use tcp or udp", s.Protocol)
		}
		if s.InternalPort < 0 || s.InternalPort > maxPort {
			p.add(at+".internal_port", "%d is not a port: 1 to %d", s.InternalPort, maxPort)
		}
		if s.MinMachinesRunning != nil && *s.MinMachinesRunning < 0 {
			p.add(at+".min_machines_running", "%d is negative", *s.MinMachinesRunning)
		}
		checkConcurrency(p, at+".concurrency", s.Concurrency)
		checkPorts(p, at+".ports", s.Ports)
		for j, check := range s.Checks {
			if check.Port == 0 {
				check.Port = s.InternalPort
			}
			checkCheck(p, fmt.Sprintf("%s.checks[%d]", at, j), check)
		}
	}
}

const maxPort = 65535

func checkPorts(p *problems, field string, ports []drover.ServicePort) {
	if len(ports) > maxPorts {
		p.add(field, "%d are too many: at most %d", len(ports), maxPorts)
	}
	for i, port := range ports {
		at := fmt.Sprintf("%s[%d]", field, i)
		for _, n := range []struct {
			name  string
			value int
		}{{"port", port.Port}, {"start_port", port.StartPort}, {"end_port", port.EndPort}} {
			if n.value < 0 || n.value > maxPort {
				p.add(at+"."+n.name, "%d is not a port: 1 to %d", n.value, maxPort)
			}
		}
		switch {
		case port.Port != 0 && (port.StartPort != 0 || port.EndPort != 0):
			p.add(at+".port", "the entry has a range already: give port, or start_port and end_port")
		case (port.StartPort == 0) != (port.EndPort == 0) || port.EndPort < port.StartPort:
			p.add(at+".end_port", "%d to %d is not a range: give start_port and a larger end_port", port.StartPort, port.EndPort)
		}
	}
}

func checkConcurrency(p *problems, at string, c *drover.Concurrency) {
	if c == nil {
		return
	}
	if !slices.Contains([]string{"", "connections", "requests"}, c.Type) {
		p.add(at+".type", "%q is unknown: use connections or requests", c.Type)
	}
	if c.SoftLimit < 0 || c.HardLimit < 0 {
		p.add(at, "its limits cannot be negative")
	}
	if c.HardLimit > 0 && c.SoftLimit > c.HardLimit {
		p.add(at+".soft_limit", "%d is more than the hard limit, %d", c.SoftLimit, c.HardLimit)
	}
}

// checkHTTP checks how a check asks by HTTP.
func checkHTTP(p *problems, at string, c drover.Check) {
	if strings.ContainsAny(c.Path, " \r\n") {
		p.add(at+".path", "%q has spaces or line ends, which HTTP does not allow: write %%20", c.Path)
	}
	if !token(c.Method) && c.Method != "" {
		p.add(at+".method", "%q is not an HTTP method such as GET", c.Method)
	}
	if !slices.Contains([]string{"", "http", "https"}, c.Protocol) {
		p.add(at+".protocol", "%q is unknown: use http or https", c.Protocol)
	}
	if !slices.Contains([]string{"", "informational", "readiness"}, c.Kind) {
		p.add(at+".kind", "%q is unknown: use informational or readiness", c.Kind)
	}
	if len(c.Headers) > maxHeaders {
		p.add(at+".headers", "%d are too many: at most %d", len(c.Headers), maxHeaders)
	}
	for i, h := range c.Headers {
		if !token(h.Name) {
			p.add(fmt.Sprintf("%s.headers[%d].name", at, i), "%q is not the name of a header", h.Name)
		}
		if slices.ContainsFunc(h.Values, func(v string) bool { return strings.ContainsAny(v, "\r\n\x00") }) {
			p.add(fmt.Sprintf("%s.headers[%d].values", at, i), "a value has line ends")
		}
	}
}

// token reports whether a text is a token of HTTP (RFC 9110, 5.6.2).
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}
