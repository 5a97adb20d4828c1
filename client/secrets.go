package client

import (
	"context"
	"net/url"

	"drover"
	"drover/apiv1"
)

const secretsPath = "/apps/%s/secrets"

// Secrets lists an app's secrets; show asks for their values, which the token must be allowed to see.
func (c *Client) Secrets(ctx context.Context, app drover.AppName, show bool) (apiv1.SecretsResponse, error) {
	query := url.Values{}
	if show {
		query.Set("show_secrets", "true")
	}
	return get[apiv1.SecretsResponse](ctx, c, query, secretsPath, app)
}

// ChangeSecrets sets the secrets that have a value and removes those that have nil, all at once. Machines get them at their next start.
func (c *Client) ChangeSecrets(ctx context.Context, app drover.AppName, values map[string]*string) (apiv1.SecretsResponse, error) {
	return post[apiv1.SecretsResponse](ctx, c, apiv1.SetSecretsRequest{Values: values}, secretsPath, app)
}

// SetSecret sets one secret.
func (c *Client) SetSecret(ctx context.Context, app drover.AppName, name, value string) (apiv1.SecretResponse, error) {
	return post[apiv1.SecretResponse](ctx, c, apiv1.SetSecretRequest{Value: value}, secretsPath+"/%s", app, name)
}

// UnsetSecret removes one secret; one that is not there is no error.
func (c *Client) UnsetSecret(ctx context.Context, app drover.AppName, name string) (apiv1.UnsetSecretResponse, error) {
	return remove[apiv1.UnsetSecretResponse](ctx, c, nil, secretsPath+"/%s", app, name)
}
