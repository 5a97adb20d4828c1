package apiv1

import "time"

// Secret describes a secret of an app. Value is there only where it was asked for.
type Secret struct {
	Name string `json:"name"`
	// Digest changes with the value, and tells nothing of it.
	Digest    string    `json:"digest"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	Value     *string   `json:"value,omitempty"`
}

// SecretsResponse is the secrets of an app. Version grows with every change, and is 0 before the first.
type SecretsResponse struct {
	Secrets []Secret `json:"secrets"`
	Version uint64   `json:"version"`
}

// SecretResponse is one secret, and the version of the app's secrets.
type SecretResponse struct {
	Secret
	Version uint64 `json:"version"`
}

// UnsetSecretResponse is the version of the app's secrets without one of them.
type UnsetSecretResponse struct {
	Version uint64 `json:"version"`
}

// SetSecretsRequest changes several secrets at once; null removes one.
type SetSecretsRequest struct {
	Values map[string]*string `json:"values"`
}

// SetSecretRequest sets one secret.
type SetSecretRequest struct {
	Value string `json:"value"`
}
