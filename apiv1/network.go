package apiv1

// RotateKeyRequest asks for another key of a host.
type RotateKeyRequest struct {
	// People: people's peers, too, will know the host by another key; they need a new configuration then.
	People bool `json:"people,omitempty"`
}
