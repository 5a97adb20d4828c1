package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// module is the module's path, root its directory as seen from this package's tests.
const (
	module = "drover"
	root   = "../.."
)

// file is one Go file of the module.
type file struct {
	// name is its path from the module's root, dir that of its package ("" for the root package).
	name, dir string
	test      bool
	lines     int
	fset      *token.FileSet
	ast       *ast.File
	// imports maps the names under which packages are used to their paths.
	imports map[string]string
}

// parse reads one file's source.
func parse(t *testing.T, name string, source []byte) file {
	t.Helper()
	f := file{name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), fset: token.NewFileSet(), imports: map[string]string{}}
	if f.dir == "." {
		f.dir = ""
	}
	var err error
	if f.ast, err = parser.ParseFile(f.fset, name, source, parser.ParseComments); err != nil {
		t.Fatal(err)
	}
	f.lines = strings.Count(string(source), "\n")
	for _, spec := range f.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		local := path.Base(p)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		f.imports[local] = p
	}
	return f
}

// sources reads every Go file of the module.
func sources(t *testing.T) []file {
	t.Helper()
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "build" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		source, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		files = append(files, parse(t, filepath.ToSlash(rel), source))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("only %d files were found: this looks at the wrong place", len(files))
	}
	return files
}

// uses lists the positions at which a function of a package is named.
func (f file) uses(pkg, function string) []token.Position {
	var at []token.Position
	ast.Inspect(f.ast, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok || s.Sel.Name != function {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && f.imports[x.Name] == pkg {
			at = append(at, f.fset.Position(s.Pos()))
		}
		return true
	})
	return at
}
