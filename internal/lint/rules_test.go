package lint

import (
	"fmt"
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// maxLines is what a file of one subject may have. Most have less than 400.
const maxLines = 600

// writesFiles are the packages that may replace files by themselves: durable is how all others do it, and faults must not depend on it.
var writesFiles = []string{"internal/durable", "internal/fault"}

// check returns what a file does against the rules, one text each.
func check(f file) []string {
	var wrong []string
	at := func(p token.Position, format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("%s:%d: ", f.name, p.Line)+fmt.Sprintf(format, args...))
	}
	forbid := func(pkg, function, why string) {
		for _, p := range f.uses(pkg, function) {
			at(p, "%s.%s: %s", pkg, function, why)
		}
	}
	if f.lines > maxLines {
		wrong = append(wrong, fmt.Sprintf("%s: %d lines; more than %d hide two subjects", f.name, f.lines, maxLines))
	}
	forbid("context", "TODO", "decide where the context comes from")
	if f.test {
		forbid("time", "Sleep", "wait on a channel, or poll a condition with a bound")
	} else {
		durable := false
		for _, dir := range writesFiles {
			durable = durable || f.dir == dir
		}
		if !durable {
			forbid("os", "Rename", "internal/durable does it so that it survives a power cut")
			forbid("os", "WriteFile", "internal/durable does it so that it survives a power cut")
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				at(f.fset.Position(fn.Pos()), "init: what a package needs is made by who uses it")
			}
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if ok && isErrorTextSearch(f, call) && !f.test {
			at(f.fset.Position(call.Pos()), "nobody reads the text of an error: use errors.Is, errors.As or a code")
		}
		return true
	})
	return wrong
}

// isErrorTextSearch recognises strings.Contains(err.Error(), ...) and its kin.
func isErrorTextSearch(f file, call *ast.CallExpr) bool {
	fn, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 {
		return false
	}
	x, ok := fn.X.(*ast.Ident)
	if !ok || f.imports[x.Name] != "strings" || !strings.HasPrefix(fn.Sel.Name, "Contains") && !strings.HasPrefix(fn.Sel.Name, "Has") {
		return false
	}
	arg, ok := call.Args[0].(*ast.CallExpr)
	if !ok || len(arg.Args) != 0 {
		return false
	}
	method, ok := arg.Fun.(*ast.SelectorExpr)
	return ok && method.Sel.Name == "Error"
}

func TestHouseRules(t *testing.T) {
	for _, f := range sources(t) {
		for _, text := range check(f) {
			t.Error(text)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	says, all := map[string]bool{}, map[string]bool{}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		all[f.dir] = true
		if f.ast.Doc != nil && len(strings.TrimSpace(f.ast.Doc.Text())) > 0 {
			says[f.dir] = true
		}
	}
	for dir := range all {
		if !says[dir] {
			t.Errorf("package %q has no comment", dir)
		}
	}
}

// TestRulesCanFail shows each rule something that breaks it.
func TestRulesCanFail(t *testing.T) {
	head := "package x\nimport (\"context\"; \"os\"; \"strings\"; \"time\")\nvar _, _, _, _ = context.Background, os.Open, strings.Cut, time.Now\n"
	for _, c := range []struct {
		name, source string
		broken       int
	}{
		{"volume/a.go", "func f() {}\n", 0},
		{"volume/a.go", "func f() { context.TODO() }\n", 1},
		{"volume/a.go", "func f() { os.Rename(\"a\", \"b\"); os.WriteFile(\"a\", nil, 0) }\n", 2},
		{"internal/durable/a.go", "func f() { os.Rename(\"a\", \"b\") }\n", 0},
		{"volume/a_test.go", "func f() { os.WriteFile(\"a\", nil, 0) }\n", 0},
		{"volume/a_test.go", "func f() { time.Sleep(1) }\n", 1},
		{"volume/a.go", "func f(err error) bool { return strings.Contains(err.Error(), \"x\") }\n", 1},
		{"volume/a.go", "func f(err error) bool { return strings.HasPrefix(err.Error(), \"x\") }\n", 1},
		{"volume/a.go", "func init() {}\n", 1},
		{"volume/a.go", strings.Repeat("\n", maxLines+1), 1},
	} {
		if got := check(parse(t, c.name, []byte(head+c.source))); len(got) != c.broken {
			t.Errorf("%s with %q: %v, want %d", c.name, strings.TrimSpace(c.source), got, c.broken)
		}
	}
}
