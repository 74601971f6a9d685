// Package internal holds the tests of the house itself: who may import whom, what
// the pure packages must not touch, and that documents name only what exists.
// It has no code to run and owns no goroutine.
package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/kith-im/kith"

// source is one Go file, with whatever build tags: the rules hold on every
// platform, so files are parsed, not built.
type source struct {
	path  string // from the root of the module, with slashes
	dir   string // "." for the root
	test  bool
	fset  *token.FileSet
	file  *ast.File
	lines int
}

// problem is a broken rule, with the reason for the rule.
type problem struct {
	where string
	what  string
}

func (s *source) at(pos token.Pos) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(pos).Line)
}

// imports maps the name of each import in the file to its path. Packages whose
// last element is a version are known by the element before it.
func (s *source) imports() map[string]string {
	names := make(map[string]string)
	for _, spec := range s.file.Imports {
		p := importPath(spec)
		name := path.Base(p)
		if len(name) > 1 && name[0] == 'v' && strings.Trim(name[1:], "0123456789") == "" {
			name = path.Base(path.Dir(p))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = p
	}
	return names
}

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic(err) // the parser has checked it
	}
	return p
}

// uses calls f for every pkg.Name in the file in which pkg is an import.
func (s *source) uses(f func(pkg, name string, at token.Pos)) {
	imports := s.imports()
	ast.Inspect(s.file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := sel.X.(*ast.Ident); ok && imports[id.Name] != "" {
				f(imports[id.Name], sel.Sel.Name, sel.Pos())
			}
		}
		return true
	})
}

func parse(name, text string) (*source, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &source{
		path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
		fset: fset, file: file, lines: strings.Count(text, "\n"),
	}, nil
}

// tree parses every Go file of the module once.
var tree = sync.OnceValues(func() ([]*source, error) {
	var all []*source
	err := walk(".go", func(name, text string) error {
		s, err := parse(name, text)
		if err == nil {
			all = append(all, s)
		}
		return err
	})
	return all, err
})

// walk calls f with every file of that extension in the module, not in nested
// modules, hidden folders or test data.
func walk(ext string, f func(name, text string) error) error {
	const root = ".."
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := d.Name()
			if name != root && (strings.HasPrefix(base, ".") || base == "testdata" || base == "node_modules") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil && name != root {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ext {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		return f(filepath.ToSlash(rel), string(text))
	})
}

// eachFile runs a rule over all files and reports what it finds.
func eachFile(t *testing.T, rule func(*source) []problem) {
	t.Helper()
	all, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d Go files found: is the test run in its own folder?", len(all))
	}
	for _, s := range all {
		for _, p := range rule(s) {
			t.Errorf("%s: %s", p.where, p.what)
		}
	}
}

// checkRule proves that a rule catches what it should: the snippet breaks it, or
// with want == "" it does not.
func checkRule(t *testing.T, rule func(*source) []problem, file, text, want string) {
	t.Helper()
	s, err := parse(file, text)
	if err != nil {
		t.Fatal(err)
	}
	got := rule(s)
	switch {
	case want == "" && len(got) > 0:
		t.Errorf("%s: refused without cause: %v\n%s", file, got, text)
	case want != "" && (len(got) != 1 || !strings.Contains(got[0].what, want)):
		t.Errorf("%s: want one problem about %q, got %v\n%s", file, want, got, text)
	}
}
