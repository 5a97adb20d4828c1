package dev

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover"
	"drover/internal/hostconf"
)

// describe writes a layout as a line.
func describe(l *Layout) string {
	var words []string
	for _, h := range l.Hosts {
		words = append(words, fmt.Sprintf("%s/%s/%d", h.ID, h.Region, h.Number))
	}
	return fmt.Sprintf("%s :%d", strings.Join(words, " "), l.APIPort)
}

func TestPlanLayout(t *testing.T) {
	port := 0
	three, err := planLayout(nil, 0, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		have    *Layout
		workers int
		regions []drover.Region
		port    *int
		want    string
		code    drover.Code
	}{
		{"the default", nil, 0, nil, nil, "c1/ams/201 h1/ams/1 h2/ams/2 h3/fra/3 :4280", ""},
		{"one worker", nil, 1, nil, &port, "c1/ams/201 h1/ams/1 :0", ""},
		{"own regions", nil, 4, []drover.Region{"a", "b", "c"}, nil, "c1/a/201 h1/a/1 h2/a/2 h3/b/3 h4/c/4 :4280", ""},
		{"as it was", three, 0, nil, nil, "c1/ams/201 h1/ams/1 h2/ams/2 h3/fra/3 :4280", ""},
		{"another port", three, 0, nil, &port, "c1/ams/201 h1/ams/1 h2/ams/2 h3/fra/3 :0", ""},
		{"growing", three, 5, nil, nil, "c1/ams/201 h1/ams/1 h2/ams/2 h3/fra/3 h4/fra/4 h5/fra/5 :4280", ""},
		{"shrinking", three, 2, nil, nil, "", drover.Precondition},
		{"too many", nil, 201, nil, nil, "", drover.Invalid},
		{"bad region", nil, 3, []drover.Region{"A b"}, nil, "", drover.Invalid},
	} {
		got, err := planLayout(c.have, c.workers, c.regions, c.port)
		if drover.CodeOf(err) != c.code || err == nil && describe(got) != c.want {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

func TestPrepareWritesGoodConfigurations(t *testing.T) {
	for _, mode := range []Mode{ModeNamespaces, ModeLoopback} {
		p := paths(shortDir(t))
		l, err := planLayout(nil, 0, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := prepare(p, l, mode, "/usr/bin/drover"); err != nil {
				t.Fatal(err)
			}
		}
		for _, h := range l.Hosts {
			c, err := hostconf.Load(p.hostConfig(h.ID))
			if err != nil {
				t.Fatal(err)
			}
			if c.ID != h.ID || c.Bus.URLs[0] != fmt.Sprintf("nats://%s:4222", network{mode: mode, p: p}.address(201)) {
				t.Errorf("%+v", c)
			}
			if _, err := os.Stat(filepath.Join(c.TLSDir, "server-key.pem")); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestNewerLayoutIsRefused(t *testing.T) {
	p := paths(t.TempDir())
	if err := os.WriteFile(p.layout(), []byte(`{"version": 2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadLayout(p); !drover.Is(err, drover.Precondition) {
		t.Error(err)
	}
}
