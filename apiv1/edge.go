package apiv1

import "time"

// IPAssignment is an address of an app.
type IPAssignment struct {
	IP          string    `json:"ip"`
	Region      string    `json:"region"`
	ServiceName string    `json:"service_name"`
	Shared      bool      `json:"shared"`
	CreatedAt   time.Time `json:"created_at"`
	// MachineID is the machine whose address it is.
	MachineID string `json:"machine_id,omitempty"`
}

// IPAssignmentsResponse is the addresses of an app.
type IPAssignmentsResponse struct {
	IPs []IPAssignment `json:"ips"`
}

// AssignIPRequest asks for an address.
type AssignIPRequest struct {
	// Type is v4, v6, shared_v4 or private_v6.
	Type        string `json:"type"`
	Region      string `json:"region,omitempty"`
	OrgSlug     string `json:"org_slug,omitempty"`
	Network     string `json:"network,omitempty"`
	ServiceName string `json:"service_name,omitempty"`
}

// CertificatesResponse is the certificates of an app.
type CertificatesResponse struct {
	Certificates []Certificate `json:"certificates"`
	NextCursor   string        `json:"next_cursor"`
	TotalCount   int           `json:"total_count"`
}

// Certificate is one certificate of an app.
type Certificate struct {
	Hostname string `json:"hostname"`
	Status   string `json:"status"`
}

// ACMECertificateRequest asks for a certificate that is issued by itself.
type ACMECertificateRequest struct {
	Hostname string `json:"hostname"`
}

// CustomCertificateRequest brings a certificate.
type CustomCertificateRequest struct {
	Hostname   string `json:"hostname"`
	Fullchain  string `json:"fullchain"`
	PrivateKey string `json:"private_key"`
}
