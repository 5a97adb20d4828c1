package hostconf

import (
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
)

// ObjectStore says where the host keeps snapshots. All hosts of a fleet must say the same.
type ObjectStore struct {
	// S3 is a store behind the S3 API; without it the fleet's bus keeps them.
	S3 *S3 `json:"s3,omitempty"`
	// UploadMiBPerSecond bounds what the host reads for snapshots. Default: no limit; guests go first in any case.
	UploadMiBPerSecond int `json:"upload_mib_per_second,omitempty"`
}

// S3 is a bucket of an S3 server.
type S3 struct {
	// Endpoint is the server's address, such as https://s3.example.com. Required.
	Endpoint string `json:"endpoint"`
	// Bucket must exist. Required.
	Bucket string `json:"bucket"`
	// Prefix is what the names of all objects begin with. Default: none.
	Prefix string `json:"prefix,omitempty"`
	// Region is what requests are signed for. Default: us-east-1.
	Region string `json:"region,omitempty"`
	// CredentialsFile is an AWS credentials file: its section "default" has aws_access_key_id and aws_secret_access_key. Required.
	CredentialsFile string `json:"credentials_file"`
	// CAFile has the CA certificates that vouch for the server. Default: the system's.
	CAFile string `json:"ca_file,omitempty"`
	// PathStyle asks for ENDPOINT/BUCKET instead of BUCKET.ENDPOINT.
	PathStyle bool `json:"path_style,omitempty"`
}

// bucketRE is the form of a bucket's name, and prefixRE that of a prefix.
var (
	bucketRE = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	prefixRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}$`)
)

// checkObjectStore reports every mistake.
func (c *Config) checkObjectStore(wrong func(ok bool, format string, args ...any)) {
	if c.ObjectStore == nil {
		return
	}
	wrong(c.ObjectStore.UploadMiBPerSecond >= 0, "object_store.upload_mib_per_second: %d is negative", c.ObjectStore.UploadMiBPerSecond)
	s := c.ObjectStore.S3
	if s == nil {
		return
	}
	u, err := url.Parse(s.Endpoint)
	wrong(err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && strings.Trim(u.Path, "/") == "" && u.RawQuery == "",
		"object_store.s3.endpoint: it is not an address such as https://s3.example.com") // not quoted: a secret may be in it by mistake
	wrong(bucketRE.MatchString(s.Bucket), "object_store.s3.bucket: %q is no name of a bucket", s.Bucket)
	wrong(s.Prefix == "" || prefixRE.MatchString(s.Prefix) && !strings.Contains(s.Prefix, "//") && !strings.Contains(s.Prefix, ".."),
		"object_store.s3.prefix: %q is no prefix: letters, digits, dots, hyphens, underscores and single slashes are expected", s.Prefix)
	wrong(filepath.IsAbs(s.CredentialsFile), "object_store.s3.credentials_file: %q is not an absolute path", s.CredentialsFile)
	wrong(s.CAFile == "" || filepath.IsAbs(s.CAFile), "object_store.s3.ca_file: %q is not an absolute path", s.CAFile)
}
