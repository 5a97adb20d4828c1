package api

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"drover"
	"drover/apiv1"
)

const (
	secretsPath    = "/apps/{app_name}/secrets"
	secretPath     = secretsPath + "/{secret_name}"
	secretKeysPath = "/apps/{app_name}/secretkeys"
)

// secretBackend is the part of Backend that is about secrets.
type secretBackend interface {
	// Secrets describes the secrets of an app; Precondition when there is no version of them that is as new as least.
	Secrets(ctx context.Context, app drover.AppName, least uint64) (drover.SecretSet, error)
	SecretValues(ctx context.Context, app drover.AppName) (drover.SecretValues, error)
	// ChangeSecrets sets those that have a value and removes those that have nil, all at once.
	ChangeSecrets(ctx context.Context, app drover.AppName, changes map[string]*drover.SecretValue) (drover.SecretSet, error)
}

func secretRoutes() []route {
	show := param{"show_secrets", "boolean", "with the values, which the token must be allowed to see"}
	version := param{"version", "integer", "refuse when there is no version of the secrets that is as new"}
	keys := func(method, path, id, summary string) route {
		return route{method: method, path: path, id: id, summary: summary + ": this fleet keeps none, and refuses", access: tenants,
			status: http.StatusUnprocessableEntity, response: apiv1.ErrorResponse{}, handle: (*handler).refuseSecretKeys}
	}
	return []route{
		{method: "GET", path: secretsPath, id: "Secrets_list", summary: "List an app's secrets, without their values", access: tenants,
			query: []param{version, show}, status: http.StatusOK, response: apiv1.SecretsResponse{}, handle: (*handler).listSecrets},
		{method: "POST", path: secretsPath, id: "Secrets_update", summary: "Set several secrets, and remove those that are null; machines get them at their next start",
			access: tenants, request: apiv1.SetSecretsRequest{}, status: http.StatusOK, response: apiv1.SecretsResponse{}, handle: (*handler).updateSecrets},
		{method: "GET", path: secretPath, id: "Secret_get", summary: "Show a secret, without its value", access: tenants,
			query: []param{version, show}, status: http.StatusOK, response: apiv1.SecretResponse{}, handle: (*handler).showSecret},
		{method: "POST", path: secretPath, id: "Secret_create", summary: "Set a secret", access: tenants,
			request: apiv1.SetSecretRequest{}, status: http.StatusCreated, response: apiv1.SecretResponse{}, handle: (*handler).setSecret},
		{method: "DELETE", path: secretPath, id: "Secret_delete", summary: "Remove a secret; one that is not there is no error", access: tenants,
			status: http.StatusOK, response: apiv1.UnsetSecretResponse{}, handle: (*handler).unsetSecret},
		keys("GET", secretKeysPath, "Secretkeys_list", "List keys that sign and encrypt for an app"),
		keys("GET", secretKeysPath+"/{key_name}", "Secretkey_get", "Show such a key"),
		keys("POST", secretKeysPath+"/{key_name}", "Secretkey_set", "Set such a key"),
		keys("DELETE", secretKeysPath+"/{key_name}", "Secretkey_delete", "Remove such a key"),
		keys("POST", secretKeysPath+"/{key_name}/{action}", "Secretkey_use", "Generate such a key, or encrypt, decrypt, sign or verify with it"),
		// The same as the document of 2024 has it.
		keys("POST", secretPath+"/type/{secret_type}", "Secretkey_set_typed", "Set such a key, as clients of 2024 do"),
		keys("POST", secretPath+"/type/{secret_type}/generate", "Secretkey_generate_typed", "Generate such a key, as clients of 2024 do"),
	}
}

// statusUnsupported is the word for what belongs to a part that this fleet does not have.
const statusUnsupported = "unsupported"

// unsupported refuses what this fleet has no part for. It is 422, which no client repeats.
func unsupported(err *drover.Error) error {
	return &httpError{cause: err, status: http.StatusUnprocessableEntity, word: statusUnsupported}
}

func (h *handler) refuseSecretKeys(*call) (any, error) {
	return nil, unsupported(drover.Errorf(drover.Precondition, "this fleet keeps no keys that sign or encrypt for an app").
		WithHint("keep the key as a secret ('drover secrets set NAME=VALUE'), and use it in the machine"))
}

// readQuiet reads a body with something in it that must not be told: what is wrong with it is said without a word of it. form is what it should be.
func readQuiet(c *call, v any, form string) error {
	err := readBody(c.w, c.r, v, false)
	if drover.Is(err, drover.Invalid) {
		status, _ := errorAnswer(err, "")
		quiet := drover.Errorf(drover.Invalid, "the request's body is not as it should be: expected %s", form).
			WithHint("what was sent is not repeated here, since it may hold a secret; GET /v1/openapi.json describes every request")
		// The field is named when it is one of the form: a name of the client's own may be a secret that it put in the wrong place.
		if field, _, _ := strings.Cut(drover.AsError(err).Field, "."); strings.Contains(form, strconv.Quote(field)+":") {
			quiet = quiet.WithField(field)
		}
		return withStatus(status, quiet)
	}
	return err
}

// revealed returns the values, if the request asks for them and the token may see them; else nil.
func (h *handler) revealed(c *call) (map[string]drover.SecretValue, error) {
	show, err := queryBool(c.r.URL.Query(), "show_secrets")
	if err != nil || !show {
		return nil, err
	}
	if h.guard.Allow(c.principal, Permission{Need: h.guard.Need(c.r, drover.ActDeploy, c.app.Name, "", false)}) != nil {
		return nil, drover.Errorf(drover.Denied, "show_secrets: the token may not see the values of secrets").WithField("show_secrets").
			WithHint("leave show_secrets out, or use a token that may")
	}
	v, err := h.backend.SecretValues(c.ctx(), c.app.Name)
	if err != nil {
		return nil, err
	}
	h.log.InfoContext(c.ctx(), "secrets shown", "app", string(c.app.Name), "actor", c.principal.Name, "request", c.id)
	return v.Values, nil
}

func (h *handler) secretSet(c *call) (drover.SecretSet, error) {
	const most = 1 << 53
	version, err := queryInt(c.r.URL.Query(), "version", 0, 0, most)
	if err != nil {
		return drover.SecretSet{}, err
	}
	return h.backend.Secrets(c.ctx(), c.app.Name, uint64(version))
}

func (h *handler) listSecrets(c *call) (any, error) {
	set, err := h.secretSet(c)
	if err != nil {
		return nil, err
	}
	values, err := h.revealed(c)
	return secretForms(set, values), err
}

// secretForms writes the secrets; values may be nil.
func secretForms(set drover.SecretSet, values map[string]drover.SecretValue) apiv1.SecretsResponse {
	out := apiv1.SecretsResponse{Secrets: []apiv1.Secret{}, Version: set.Version}
	for _, s := range set.Secrets {
		form := apiv1.Secret{Name: s.Name, Digest: s.Digest, CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt}
		if v, ok := values[s.Name]; ok {
			text := v.Reveal()
			form.Value = &text
		}
		out.Secrets = append(out.Secrets, form)
	}
	return out
}

func (h *handler) updateSecrets(c *call) (any, error) {
	const form = `{"values": {"NAME": "value", "OTHER": null}}`
	var raw struct {
		Values map[string]json.RawMessage `json:"values"`
	}
	if err := readQuiet(c, &raw, form); err != nil {
		return nil, err
	}
	if len(raw.Values) == 0 {
		return nil, badField("values", "is empty; expected %s", form)
	}
	changes := map[string]*drover.SecretValue{}
	for _, name := range slices.Sorted(maps.Keys(raw.Values)) {
		var text *string
		if json.Unmarshal(raw.Values[name], &text) != nil {
			return nil, badField("values."+name, "is neither a text nor null")
		}
		if changes[name] = nil; text != nil {
			value := drover.NewSecretValue(*text)
			changes[name] = &value
		}
	}
	set, err := h.backend.ChangeSecrets(c.ctx(), c.app.Name, changes)
	return secretForms(set, nil), err
}

// oneSecret finds a secret in the answer for all.
func oneSecret(all apiv1.SecretsResponse, name string) (apiv1.SecretResponse, error) {
	for _, s := range all.Secrets {
		if s.Name == name {
			return apiv1.SecretResponse{Secret: s, Version: all.Version}, nil
		}
	}
	return apiv1.SecretResponse{}, drover.Errorf(drover.NotFound, "secret not found: %q", name).WithHint("'drover secrets list' shows those that there are")
}

func (h *handler) showSecret(c *call) (any, error) {
	set, err := h.secretSet(c)
	if err != nil {
		return nil, err
	}
	values, err := h.revealed(c)
	if err != nil {
		return nil, err
	}
	return oneSecret(secretForms(set, values), c.r.PathValue("secret_name"))
}

func (h *handler) setSecret(c *call) (any, error) {
	const form = `{"value": "the value, as a text"}`
	var req struct {
		Value *string `json:"value"`
	}
	if err := readQuiet(c, &req, form); err != nil {
		return nil, err
	}
	if req.Value == nil {
		return nil, badField("value", "is missing; expected %s", form)
	}
	name, value := c.r.PathValue("secret_name"), drover.NewSecretValue(*req.Value)
	set, err := h.backend.ChangeSecrets(c.ctx(), c.app.Name, map[string]*drover.SecretValue{name: &value})
	if err != nil {
		return nil, err
	}
	return oneSecret(secretForms(set, nil), name)
}

func (h *handler) unsetSecret(c *call) (any, error) {
	set, err := h.backend.ChangeSecrets(c.ctx(), c.app.Name, map[string]*drover.SecretValue{c.r.PathValue("secret_name"): nil})
	return apiv1.UnsetSecretResponse{Version: set.Version}, err
}
