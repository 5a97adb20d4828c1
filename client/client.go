package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"drover"
	"drover/apiv1"
)

// Config says where the API is and who asks.
type Config struct {
	// BaseURL is the API's URL without /v1, such as "http://127.0.0.1:4280".
	BaseURL string
	Token   string
	// HTTPClient sends the requests; nil means a client of its own without a timeout: each call's context bounds it.
	HTTPClient *http.Client
	// Patience is how long the following helpers go on asking a server that does not answer. 0 means 60 s.
	Patience time.Duration
	// Nonce is that of the lease with which machines are changed, unless a context has another one (WithNonce). Empty for none.
	Nonce string
	// Interval is the pause between two looks of FollowMigration, and between two tries at a server that does not answer. 0
	// means 500 ms.
	Interval time.Duration
}

// maxAnswer bounds an answer's body: a full exec result as base64, with room.
const maxAnswer = 64 << 20

// Client is safe for concurrent use.
type Client struct {
	base     string
	token    string
	nonce    string
	http     *http.Client
	patience time.Duration
	interval time.Duration
}

// New returns a client. It sends nothing. Invalid when BaseURL is not an http or https URL.
func New(config Config) (*Client, error) {
	u, err := url.Parse(config.BaseURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, drover.Errorf(drover.Invalid, "the API's URL is %q; expected one such as \"http://127.0.0.1:4280\"", config.BaseURL)
	}
	c := &Client{
		base:     strings.TrimSuffix(strings.TrimSuffix(config.BaseURL, "/"), "/v1") + "/v1",
		token:    config.Token,
		nonce:    config.Nonce,
		http:     config.HTTPClient,
		patience: config.Patience,
		interval: config.Interval,
	}
	if c.http == nil {
		c.http = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute}}
	}
	if c.patience == 0 {
		c.patience = time.Minute
	}
	if c.interval == 0 {
		c.interval = 500 * time.Millisecond
	}
	return c, nil
}

// Close closes idle connections. The client may still be used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// BaseURL returns the API's URL, with /v1.
func (c *Client) BaseURL() string { return c.base }

// answerError is a refusal with its HTTP status, which the code alone does not tell.
type answerError struct {
	status int
	cause  *drover.Error
}

func (e *answerError) Error() string { return e.cause.Error() }
func (e *answerError) Unwrap() error { return e.cause }

// do sends a request and reads the answer into out, unless out is nil.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	err := c.send(ctx, method, path, query, in, out)
	if err == nil {
		return nil
	}
	return drover.AsError(err)
}

// send is do with the HTTP status kept in the error.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return drover.Errorf(drover.Invalid, "cannot write the request as JSON: %w", err)
		}
		body = bytes.NewReader(data)
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return drover.Errorf(drover.Invalid, "cannot make the request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.nonce != "" {
		req.Header.Set(apiv1.LeaseNonceHeader, c.nonce)
	}
	for name, value := range headersOf(ctx) {
		req.Header.Set(name, value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.transportError(ctx, err)
	}
	defer resp.Body.Close() // only read
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return c.transportError(ctx, err)
	}
	if len(data) > maxAnswer {
		return drover.Errorf(drover.Internal, "the API's answer to %s %s is larger than %d bytes", method, path, maxAnswer)
	}
	return readAnswer(resp, data, out)
}

// transportError is for a request that got no whole answer.
func (c *Client) transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return drover.Errorf(drover.Canceled, "canceled while waiting for the API: %w", context.Cause(ctx))
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // its text would repeat the URL
	}
	return drover.Errorf(drover.Unavailable, "cannot reach the API at %s: %w", c.base, err).WithHint("see that it runs there, or name another address: --api or DROVER_API_URL")
}

func readAnswer(resp *http.Response, data []byte, out any) error {
	if resp.StatusCode/100 == 2 {
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(data, out); err != nil {
			return drover.Errorf(drover.Internal, "cannot read the API's answer: %w", err)
		}
		return nil
	}
	var body apiv1.ErrorResponse
	if err := json.Unmarshal(data, &body); err != nil || body.Error == "" {
		// Not Drover's API, or a proxy before it.
		return &answerError{status: resp.StatusCode, cause: drover.Errorf(codeOf(resp.StatusCode), "the API answered %s without saying why", resp.Status)}
	}
	if body.Code == "" {
		body.Code = codeOf(resp.StatusCode)
	}
	return &answerError{status: resp.StatusCode, cause: &drover.Error{Code: body.Code, Text: body.Error, Hint: body.Hint, Field: body.Field}}
}

// codeOf guesses the code where the answer has none.
func codeOf(status int) drover.Code {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return drover.Denied
	case http.StatusNotFound:
		return drover.NotFound
	case http.StatusConflict:
		return drover.Conflict
	case http.StatusPreconditionFailed:
		return drover.Precondition
	case http.StatusTooManyRequests:
		return drover.Exhausted
	case http.StatusRequestTimeout, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return drover.Unavailable
	}
	if status >= 400 && status < 500 {
		return drover.Invalid
	}
	return drover.Internal
}

// get, post, put and remove are do with a typed answer.
func get[T any](ctx context.Context, c *Client, query url.Values, format string, args ...any) (T, error) {
	var out T
	err := c.do(ctx, http.MethodGet, pathOf(format, args), query, nil, &out)
	return out, err
}

func post[T any](ctx context.Context, c *Client, in any, format string, args ...any) (T, error) {
	var out T
	err := c.do(ctx, http.MethodPost, pathOf(format, args), nil, in, &out)
	return out, err
}

func put[T any](ctx context.Context, c *Client, in any, format string, args ...any) (T, error) {
	var out T
	err := c.do(ctx, http.MethodPut, pathOf(format, args), nil, in, &out)
	return out, err
}

func remove[T any](ctx context.Context, c *Client, query url.Values, format string, args ...any) (T, error) {
	var out T
	err := c.do(ctx, http.MethodDelete, pathOf(format, args), query, nil, &out)
	return out, err
}

// pathOf fills names into a path, each quoted so that it stays one segment. A name that is empty, "." or ".." would make
// another path; it is replaced by one that names nothing.
func pathOf(format string, args []any) string {
	quoted := make([]any, len(args))
	for i, arg := range args {
		name := fmt.Sprint(arg)
		if name == "" || name == "." || name == ".." {
			name = "-"
		}
		quoted[i] = url.PathEscape(name)
	}
	return fmt.Sprintf(format, quoted...)
}
