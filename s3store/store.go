package s3store

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"drover"
)

const (
	// retries is how often a request is tried, opTimeout how long all tries together may take.
	retries   = 3
	opTimeout = time.Minute
	// dialTimeout and headerTimeout bound one try: to reach the server, and to hear of it once the request was sent.
	dialTimeout   = 5 * time.Second
	headerTimeout = 30 * time.Second
	// maxConns is how many connections are kept for the next request.
	maxConns = 16
)

// Config says where the objects are.
type Config struct {
	// Endpoint is the server: "https://s3.example.com", with a port if it is not the scheme's.
	Endpoint string
	Bucket   string
	// Prefix is what the names of all objects in the bucket begin with, without a slash at its ends; empty for none.
	Prefix string
	// Region is what requests are signed for. Default: us-east-1.
	Region string
	// CredentialsFile is an AWS credentials file whose section "default" has aws_access_key_id and aws_secret_access_key. It is read
	// again when the server refuses what is in it.
	CredentialsFile string
	// CAFile has the certificates of those who may vouch for the server; empty for the system's.
	CAFile string
	// PathStyle asks for ENDPOINT/BUCKET instead of BUCKET.ENDPOINT. It is used in any case for an endpoint that is an IP address.
	PathStyle bool
}

// Store is an object store. Safe for concurrent use.
type Store struct {
	core   minio.Core
	creds  *credentials.Credentials
	bucket string
	prefix string
}

var _ drover.ObjectStore = (*Store)(nil)

// New checks the configuration. It asks nothing of the server yet; the credentials file is read at the first request.
func New(cfg Config) (*Store, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil {
		return nil, drover.Errorf(drover.Invalid, "%q is no endpoint of an S3 server: an address such as https://s3.example.com is expected", cfg.Endpoint).WithField("endpoint")
	}
	if cfg.Bucket == "" || cfg.CredentialsFile == "" {
		return nil, drover.Errorf(drover.Invalid, "an S3 object store needs a bucket and a credentials file")
	}
	prefix := strings.Trim(cfg.Prefix, "/")
	if prefix != "" {
		if err := drover.CheckObjectName(prefix); err != nil {
			return nil, drover.Errorf(drover.Invalid, "the prefix of the S3 object store: %w", err).WithField("prefix")
		}
		prefix += "/"
	}
	transport, err := newTransport(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	lookup := minio.BucketLookupAuto
	if cfg.PathStyle || net.ParseIP(u.Hostname()) != nil {
		lookup = minio.BucketLookupPath
	}
	region := cfg.Region
	if region == "" {
		region = "us-east-1"
	}
	creds := credentials.NewFileAWSCredentials(cfg.CredentialsFile, "default")
	client, err := minio.New(u.Host, &minio.Options{Creds: creds, Secure: u.Scheme == "https", Transport: transport, Region: region,
		BucketLookup: lookup, MaxRetries: retries})
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot use the S3 endpoint %q: %w", cfg.Endpoint, err).WithField("endpoint")
	}
	return &Store{core: minio.Core{Client: client}, creds: creds, bucket: cfg.Bucket, prefix: prefix}, nil
}

func newTransport(caFile string) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		MaxIdleConnsPerHost:   maxConns,
		IdleConnTimeout:       time.Minute,
		DisableCompression:    true,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if caFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot read the CA certificates of the S3 object store: %w", err).WithField("ca_file")
	}
	t.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
		return nil, drover.Errorf(drover.Invalid, "%s has no certificate", caFile).WithField("ca_file")
	}
	return t, nil
}

// translate makes a *drover.Error.
func (s *Store) translate(ctx context.Context, verb, name string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && context.Cause(ctx) != errTooLong {
		return drover.Errorf(drover.Canceled, "cannot %s object %s of bucket %s: %w", verb, name, s.bucket, context.Cause(ctx))
	}
	e := drover.Errorf(codeOf(err), "cannot %s object %s of bucket %s: %w", verb, name, s.bucket, err)
	if e.Code == drover.Denied {
		s.creds.Expire() // the file may have been replaced
		return e.WithHint("check object_store.s3.credentials_file in the host's configuration, and what its key may do in the bucket")
	}
	return e
}

var errTooLong = errors.New("the server did not answer in time")

// codeOf classifies what the library returns.
func codeOf(err error) drover.Code {
	var r minio.ErrorResponse
	if !errors.As(err, &r) {
		var missing *os.PathError
		if errors.As(err, &missing) {
			return drover.Denied // the credentials file
		}
		return drover.Unavailable // no connection, a connection that broke, no answer in time
	}
	switch r.Code {
	case minio.NoSuchKey:
		return drover.NotFound
	case minio.NoSuchBucket:
		return drover.Precondition
	case "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "EntityTooLarge":
		return drover.Exhausted
	case "RequestTimeTooSkewed", "ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "InvalidToken":
		return drover.Denied
	}
	switch c := r.StatusCode; {
	case c == http.StatusInsufficientStorage:
		return drover.Exhausted
	case c == http.StatusUnauthorized, c == http.StatusForbidden:
		return drover.Denied
	case c == http.StatusNotFound:
		return drover.NotFound
	case c == http.StatusTooManyRequests, c == http.StatusRequestTimeout, c >= 500, c == 0:
		return drover.Unavailable
	}
	return drover.Internal
}

// begin checks the name and bounds the time.
func (s *Store) begin(ctx context.Context, name string) (context.Context, context.CancelFunc, error) {
	if err := drover.CheckObjectName(name); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, opTimeout, errTooLong)
	return ctx, cancel, nil
}

// Put is drover.ObjectStore's.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	ctx, cancel, err := s.begin(ctx, name)
	if err != nil {
		return err
	}
	defer cancel()
	if len(data) > int(drover.MaxObject) {
		return drover.Errorf(drover.Invalid, "cannot write object %s: it has %d bytes, more than an object may have", name, len(data))
	}
	_, err = s.core.Client.PutObject(ctx, s.bucket, s.prefix+name, bytes.NewReader(data), int64(len(data)),
		minio.PutObjectOptions{ContentType: "application/octet-stream", DisableMultipart: true})
	return s.translate(ctx, "write", name, err)
}

// Get is drover.ObjectStore's.
func (s *Store) Get(ctx context.Context, name string) ([]byte, error) {
	ctx, cancel, err := s.begin(ctx, name)
	if err != nil {
		return nil, err
	}
	defer cancel()
	body, info, _, err := s.core.GetObject(ctx, s.bucket, s.prefix+name, minio.GetObjectOptions{})
	if err != nil {
		return nil, s.translate(ctx, "read", name, err)
	}
	if info.Size < 0 || info.Size > int64(drover.MaxObject) {
		err = drover.Errorf(drover.Internal, "cannot read object %s: it has %d bytes, more than an object may have", name, info.Size)
		return nil, errors.Join(err, body.Close())
	}
	data := make([]byte, info.Size)
	_, err = io.ReadFull(body, data)
	if cerr := body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, s.translate(ctx, "read", name, fmt.Errorf("the connection broke: %w", err))
	}
	return data, nil
}

// Has is drover.ObjectStore's.
func (s *Store) Has(ctx context.Context, name string) (bool, error) {
	ctx, cancel, err := s.begin(ctx, name)
	if err != nil {
		return false, err
	}
	defer cancel()
	_, err = s.core.StatObject(ctx, s.bucket, s.prefix+name, minio.StatObjectOptions{})
	if err = s.translate(ctx, "look for", name, err); drover.Is(err, drover.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// Delete is drover.ObjectStore's.
func (s *Store) Delete(ctx context.Context, name string) error {
	ctx, cancel, err := s.begin(ctx, name)
	if err != nil {
		return err
	}
	defer cancel()
	err = s.translate(ctx, "delete", name, s.core.RemoveObject(ctx, s.bucket, s.prefix+name, minio.RemoveObjectOptions{}))
	if drover.Is(err, drover.NotFound) {
		return nil
	}
	return err
}

// List is drover.ObjectStore's.
func (s *Store) List(ctx context.Context, prefix string, fn func(name string, size drover.Bytes) error) error {
	listing, cancel := context.WithCancel(ctx) // ends the library's goroutine
	defer cancel()
	for o := range s.core.ListObjectsIter(listing, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true}) {
		if o.Err != nil {
			return s.translate(ctx, "list", prefix+"*", o.Err)
		}
		if err := fn(strings.TrimPrefix(o.Key, s.prefix), drover.Bytes(o.Size)); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return s.translate(ctx, "list", prefix+"*", context.Cause(ctx))
	}
	return nil
}
