package lint

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// layers is the table of ARCHITECTURE.md: for each package the number of its layer, 0 the highest.
type layers struct {
	names []string
	of    map[string]int
}

var quoted = regexp.MustCompile("`([^`]+)`")

// readLayers reads the table whose header is "| layer | packages |".
func readLayers(t *testing.T, text string) layers {
	t.Helper()
	_, table, ok := strings.Cut(text, "| layer | packages |\n")
	if !ok {
		t.Fatal("ARCHITECTURE.md has no table of layers")
	}
	l := layers{of: map[string]int{}}
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(line, "|")
		if strings.HasPrefix(strings.TrimSpace(cells[1]), "---") {
			continue
		}
		for _, match := range quoted.FindAllStringSubmatch(cells[2], -1) {
			name := match[1]
			if name == module {
				name = ""
			}
			if _, twice := l.of[name]; twice {
				t.Errorf("ARCHITECTURE.md lists %q twice", name)
			}
			l.of[name] = len(l.names)
		}
		l.names = append(l.names, strings.TrimSpace(cells[1]))
	}
	return l
}

// home finds the listed package that a package is, or is inside of.
func (l layers) home(dir string) (string, bool) {
	for {
		if _, ok := l.of[dir]; ok && (dir != "" || l.of[""] >= 0) {
			return dir, true
		}
		i := strings.LastIndexByte(dir, '/')
		if i < 0 {
			return "", false
		}
		dir = dir[:i]
	}
}

// judge returns why a package may not import another, "" if it may.
func (l layers) judge(from, to string) string {
	source, ok := l.home(from)
	if !ok {
		return fmt.Sprintf("%s is not in the table of ARCHITECTURE.md", from)
	}
	target, ok := l.home(to)
	if !ok {
		return fmt.Sprintf("%s is not in the table of ARCHITECTURE.md", to)
	}
	if source == target {
		return ""
	}
	helpers, words := slices.Index(l.names, "helpers"), slices.Index(l.names, "words")
	s, d := l.of[source], l.of[target]
	switch {
	case s == helpers:
		if d == words || d == helpers {
			return ""
		}
		return fmt.Sprintf("%s is a helper and may import words and helpers only, not %s", from, to)
	case d == helpers, s < d:
		return ""
	case s == 0 && d == 0:
		return "" // commands cannot be imported; what can be is a part that one of them shares with others
	case s == words && d == words:
		return "" // the API's forms are made of the root package's words
	case s == d:
		return fmt.Sprintf("%s and %s are both %s; packages of one layer do not import each other", from, to, l.names[s])
	}
	return fmt.Sprintf("%s (%s) is below %s (%s); imports go down only", from, l.names[s], to, l.names[d])
}

func TestImportsGoDown(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	l := readLayers(t, string(text))
	wrong := map[string]bool{}
	for _, f := range sources(t) {
		if f.test || strings.HasPrefix(f.dir, "internal/lint") {
			continue // tests may use whatever they need
		}
		if _, ok := l.home(f.dir); !ok {
			wrong[fmt.Sprintf("%s is not in the table of ARCHITECTURE.md", f.dir)] = true
		}
		for _, p := range f.imports {
			to, ours := strings.CutPrefix(p, module+"/")
			if p == module {
				to, ours = "", true
			}
			if !ours {
				continue
			}
			if why := l.judge(f.dir, to); why != "" {
				wrong[why] = true
			}
		}
	}
	for _, why := range slices.Sorted(maps.Keys(wrong)) {
		t.Error(why)
	}
}

func TestJudge(t *testing.T) {
	l := readLayers(t, "x\n| layer | packages |\n| --- | --- |\n| command | `demo` `bench` |\n| faces | `api` `dev` |\n| adapters | `qemu` `oci` |\n"+
		"| words | `drover` (root) `apiv1` |\n| helpers | `internal/durable` `internal/fleetca` |\n\nmore\n")
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"api", "qemu", true},
		{"bench", "demo/image", true},
		{"api", "", true},
		{"api", "internal/durable", true},
		{"apiv1", "", true},
		{"oci", "oci/ext4", true},
		{"oci/ext4", "", true},
		{"internal/fleetca", "internal/durable", true},
		{"api", "dev", false},
		{"qemu", "oci/ext4", false},
		{"qemu", "api", false},
		{"", "qemu", false},
		{"internal/durable", "qemu", false},
		{"api", "brandnew", false},
	} {
		if why := l.judge(c.from, c.to); (why == "") != c.ok {
			t.Errorf("%q imports %q: %q", c.from, c.to, why)
		}
	}
}
