package fleetca

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"drover"
)

func newControl(t *testing.T, ca *CA, id drover.HostID) string {
	t.Helper()
	dir := newHost(t, ca, id)
	if err := IssueControl(ca, dir, id); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustBytes(t *testing.T) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func TestWhatIsSealedIsForOneHost(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	secret := []byte("a secret of a volume")
	cert, err := CheckHost(h2, mustBytes(t)(HostCertificate(h1)), "h1")
	if err != nil {
		t.Fatal(err)
	}
	sealed := mustBytes(t)(Seal(cert, "volume key_1", secret))
	if bytes.Contains(sealed, secret) {
		t.Fatal("it is not sealed")
	}
	if got := mustBytes(t)(OpenAsHost(h1, "volume key_1", sealed)); !bytes.Equal(got, secret) {
		t.Errorf("opened: %q", got)
	}
	spoilt := bytes.Clone(sealed)
	spoilt[len(spoilt)-1]++
	for name, open := range map[string]func() ([]byte, error){
		"another host":    func() ([]byte, error) { return OpenAsHost(h2, "volume key_1", sealed) },
		"another purpose": func() ([]byte, error) { return OpenAsHost(h1, "volume key_2", sealed) },
		"damaged":         func() ([]byte, error) { return OpenAsHost(h1, "volume key_1", spoilt) },
		"nothing":         func() ([]byte, error) { return OpenAsHost(h1, "volume key_1", nil) },
	} {
		if _, err := open(); !drover.Is(err, drover.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCertificatesOfStrangersAreRefused(t *testing.T) {
	ca := newCA(t)
	h1, h2, stranger, c1 := newHost(t, ca, "h1"), newHost(t, ca, "h2"), newControl(t, newCA(t), "h1"), newControl(t, ca, "c1")
	for name, der := range map[string][]byte{
		"another CA":   mustBytes(t)(HostCertificate(stranger)),
		"another host": mustBytes(t)(HostCertificate(h2)),
		"no DER":       []byte("certificate"),
		"nothing":      nil,
	} {
		if _, err := CheckHost(h1, der, "h1"); !drover.Is(err, drover.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, der := range map[string][]byte{
		"a worker":                     mustBytes(t)(HostCertificate(h1)),
		"its own as a host":            mustBytes(t)(HostCertificate(c1)),
		"a control host of another CA": mustBytes(t)(ControlCertificate(stranger)),
	} {
		if _, _, err := CheckControl(h1, der); !drover.Is(err, drover.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, host, err := CheckControl(h1, mustBytes(t)(ControlCertificate(c1))); err != nil || host != "c1" {
		t.Errorf("%q, %v", host, err)
	}
	if _, err := ControlCertificate(h1); !drover.Is(err, drover.Precondition) {
		t.Errorf("a host that is no control host: %v", err)
	}
}

func TestControlHostsSign(t *testing.T) {
	ca := newCA(t)
	h1, c1 := newHost(t, ca, "h1"), newControl(t, ca, "c1")
	der, message := mustBytes(t)(ControlCertificate(c1)), []byte("this is the key")
	signature := mustBytes(t)(SignAsControl(c1, message))
	if host, err := VerifyControl(h1, der, message, signature); err != nil || host != "c1" {
		t.Errorf("%q, %v", host, err)
	}
	if _, err := VerifyControl(h1, der, []byte("that is the key"), signature); !drover.Is(err, drover.Denied) {
		t.Errorf("another message: %v", err)
	}
	if _, err := VerifyControl(h1, mustBytes(t)(HostCertificate(h1)), message, signature); !drover.Is(err, drover.Denied) {
		t.Errorf("another certificate: %v", err)
	}
}

// What was sealed to a control host can be opened after its certificate was issued again.
func TestAControlHostKeepsItsKey(t *testing.T) {
	ca, dir := newCA(t), filepath.Join(t.TempDir(), "tls")
	now := time.Now()
	issue := func(at time.Time) []byte {
		t.Helper()
		if err := issueAt(ca, dir, "c1", nil, nil, at); err != nil {
			t.Fatal(err)
		}
		if err := issueControlAt(ca, dir, "c1", at); err != nil {
			t.Fatal(err)
		}
		return mustBytes(t)(ControlCertificate(dir))
	}
	first := issue(now.Add(-hostLife * 3 / 4))
	if again := issue(now.Add(-hostLife / 2)); !bytes.Equal(first, again) {
		t.Error("it was issued again for nothing")
	}
	cert, _, err := CheckControl(dir, first)
	if err != nil {
		t.Fatal(err)
	}
	sealed := mustBytes(t)(Seal(cert, "fleet", []byte("secret")))
	late := issue(now)
	if bytes.Equal(first, late) {
		t.Error("it was not renewed with a quarter of its life left")
	}
	if got := mustBytes(t)(OpenAsControl(dir, "fleet", sealed)); string(got) != "secret" {
		t.Errorf("opened: %q", got)
	}
	renewed, _, err := CheckControl(dir, late)
	if err != nil || !bytes.Equal(Fingerprint(renewed), Fingerprint(cert)) {
		t.Errorf("the key is another one: %v", err)
	}
}
