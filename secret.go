package drover

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"time"
)

// SecretValue is the value of a secret. It writes itself nowhere: whoever needs the value asks for it by Reveal.
type SecretValue struct{ value string }

// NewSecretValue wraps a value.
func NewSecretValue(value string) SecretValue { return SecretValue{value} }

// Reveal returns the value itself.
func (v SecretValue) Reveal() string { return v.value }

// redacted is what is written in place of a value.
const redacted = "[secret]"

// String is redacted, as are all other forms of a value.
func (SecretValue) String() string { return redacted }

// Format is what every verb of fmt shows.
func (SecretValue) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) } // fmt keeps the error

// LogValue is what a log shows.
func (SecretValue) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON keeps a value out of every record and answer that it is not put into on purpose.
func (SecretValue) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// Secret describes one secret of an app, not its value.
type Secret struct {
	Name string `json:"name"`
	// Digest changes with the value, and tells nothing of it.
	Digest    string    `json:"digest"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// SecretSet describes all secrets of an app, by name.
type SecretSet struct {
	// Version grows with every change, and never repeats, also when the app is deleted and made again. 0: the app never had any.
	Version uint64   `json:"version"`
	Secrets []Secret `json:"secrets"`
}

// SecretValues is the secrets of an app with their values, by name.
type SecretValues struct {
	Version uint64
	Values  map[string]SecretValue
}

// secretsForm is the one form in which values are written.
type secretsForm struct {
	Version uint64            `json:"version"`
	Values  map[string]string `json:"values,omitempty"`
}

// Encode writes the values themselves, for a seal, or a file in memory that only their machine's host can read.
func (v SecretValues) Encode() ([]byte, error) {
	form := secretsForm{Version: v.Version, Values: map[string]string{}}
	for name, value := range v.Values {
		form.Values[name] = value.Reveal()
	}
	return json.Marshal(form)
}

// DecodeSecretValues reads what Encode wrote. Its error tells nothing of it.
func DecodeSecretValues(data []byte) (SecretValues, error) {
	var form secretsForm
	if json.Unmarshal(data, &form) != nil {
		return SecretValues{}, Errorf(Internal, "the secrets cannot be read: they are damaged")
	}
	v := SecretValues{Version: form.Version, Values: map[string]SecretValue{}}
	for name, value := range form.Values {
		v.Values[name] = NewSecretValue(value)
	}
	return v, nil
}

// Limits of an app's secrets: they travel in one message, and are part of the environment of a process.
const (
	MaxSecrets      = 256
	MaxSecretBytes  = 64 << 10
	MaxSecretsBytes = 256 << 10
)

var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,254}$`)

// CheckSecretName returns Invalid unless a secret may have the name.
func CheckSecretName(name string) error {
	switch {
	case !secretName.MatchString(name):
		return Errorf(Invalid, "%q cannot be the name of a secret: letters, digits and underscores, not beginning with a digit, 255 at most", name).WithField("name")
	case strings.HasPrefix(name, "DROVER_"):
		return Errorf(Invalid, "%q cannot be the name of a secret: names that begin with DROVER_ are Drover's own", name).WithField("name")
	}
	return nil
}

// SecretStore keeps the secrets of apps, on the control side.
//
// Errors are *Error: Invalid for names and values that cannot be, Unavailable when the store cannot be read or written now, Precondition when it
// never will be as things are. All methods may be repeated, and are safe for concurrent use.
type SecretStore interface {
	// Secrets describes the secrets of an app. An app that has none is no error.
	Secrets(ctx context.Context, app AppName) (SecretSet, error)
	// Values returns them with their values.
	Values(ctx context.Context, app AppName) (SecretValues, error)
	// Change sets the secrets that have a value, and removes those that have nil, all at once; to remove what is not there is no error. It is durable
	// when it returns. still is asked after the write: when it says no, the write is taken back, unless another came after it, and the
	// error is still's.
	Change(ctx context.Context, app AppName, changes map[string]*SecretValue, still func(ctx context.Context) error) (SecretSet, error)
	// Drop destroys all secrets of an app, and what they were encrypted with.
	Drop(ctx context.Context, app AppName) error
	// Apps lists the apps that the store knows of.
	Apps(ctx context.Context) ([]AppName, error)
}

// SecretsRequest is a host's request for the secrets of a machine that it has or is to get. Certificate is the one that the answer is sealed to.
type SecretsRequest struct {
	Machine     MachineID `json:"machine"`
	Host        HostID    `json:"host"`
	Certificate []byte    `json:"certificate"`
}
