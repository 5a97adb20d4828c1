package hostconf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover"

	"github.com/google/go-cmp/cmp"
)

func TestObjectStoreIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host.json")
	text := `{"version": 1, "id": "h1", "region": "ams", "roles": ["worker"], "address": "10.98.0.1", "data_dir": "/d", "run_dir": "/r", "tls_dir": "/t",
		"bus": {"urls": ["nats://10.98.0.4:4222"]}, "object_store": {"upload_mib_per_second": 50, "s3": {"endpoint": "https://s3.example.com:9000",
		"bucket": "fleet-1", "prefix": "drover/ams", "region": "eu-west-1", "credentials_file": "/etc/drover/s3", "ca_file": "/etc/drover/ca.pem", "path_style": true}}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := &ObjectStore{UploadMiBPerSecond: 50, S3: &S3{Endpoint: "https://s3.example.com:9000", Bucket: "fleet-1", Prefix: "drover/ams", Region: "eu-west-1",
		CredentialsFile: "/etc/drover/s3", CAFile: "/etc/drover/ca.pem", PathStyle: true}}
	if diff := cmp.Diff(want, c.ObjectStore); diff != "" {
		t.Error(diff)
	}
}

func TestObjectStoreMistakesAreReportedTogether(t *testing.T) {
	c := good()
	c.ObjectStore = &ObjectStore{UploadMiBPerSecond: -1, S3: &S3{Endpoint: "https://key:hidden@s3.example.com", Bucket: "No Bucket", Prefix: "/a//b",
		CredentialsFile: "credentials", CAFile: "ca.pem"}}
	path := filepath.Join(t.TempDir(), "host.json")
	if err := Save(path, c); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if !drover.Is(err, drover.Invalid) {
		t.Fatal(err)
	}
	for _, field := range []string{"upload_mib_per_second:", "s3.endpoint:", "s3.bucket:", "s3.prefix:", "s3.credentials_file:", "s3.ca_file:"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not in: %v", field, err)
		}
	}
	if strings.Contains(err.Error(), "hidden") {
		t.Errorf("a secret is in: %v", err)
	}
}
