package internal_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// maxLines is where a file needs a map to be read.
const maxLines = 700

func TestNoPackageState(t *testing.T) { eachFile(t, stateProblems) }

func TestStateRulesCatch(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"var ErrGone = errors.New(`gone`)", ""},
		{"var errGone error = &failure{}", ""},
		{"var _ fmt.Stringer = (*failure)(nil)", ""},
		{"var word = regexp.MustCompile(`a`)", ""},
		{"var table = map[string]int{`a`: 1}", ""},
		{"var loopback = netip.IPv6Loopback()", ""},
		{"var schema = template.Must(template.New(`a`).Parse(`b`))", ""},
		{"var magic = []byte(`KITH`)", ""},
		{"var limit = 3 << 10", ""},
		{"//go:embed a.txt\nvar text string", ""},
		{"func (s *server) init() {}", ""},
		{"func init() {}", "func init"},
		{"var count int", "count"},
		{"var mu sync.Mutex", "mu"},
		{"var cache = make(map[string]int)", "cache"},
		{"var cache = map[string]int{}", "cache"},
		{"var std = &logger{}", "std"},
		{"var std = newLogger()", "std"},
		{"var ch = new(int)", "ch"},
	} {
		checkRule(t, stateProblems, "dht/x.go", "package p\n\n"+c.body+"\n", c.want)
	}
	checkRule(t, stateProblems, "dht/x_test.go", "package p\n\nvar count int\n", "")
}

func stateProblems(s *source) []problem {
	var found []problem
	report := func(at token.Pos, format string, args ...any) {
		found = append(found, problem{s.at(at), fmt.Sprintf(format, args...)})
	}
	for _, decl := range s.file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Name.Name == "init" && d.Recv == nil {
				report(d.Pos(), "func init: importing a package must do nothing; let main call it")
			}
		case *ast.GenDecl:
			if d.Tok != token.VAR || s.test {
				continue
			}
			for _, spec := range d.Specs {
				v := spec.(*ast.ValueSpec)
				if embedded(d.Doc) || embedded(v.Doc) {
					continue
				}
				for i, name := range v.Names {
					var value ast.Expr
					if i < len(v.Values) {
						value = v.Values[i]
					}
					if !constant(name.Name, value) {
						report(name.Pos(), "package variable %s holds state: many nodes live in one process, "+
							"so state belongs in a struct (errors, tables, patterns and embedded files are fine)", name.Name)
					}
				}
			}
		}
	}
	return found
}

func embedded(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed ")
	})
}

// constant says whether a variable is one only because Go has no constants of its
// type. It goes by form: a table that is changed later is for reviewers to find.
func constant(name string, value ast.Expr) bool {
	if name == "_" || value != nil && (strings.HasPrefix(name, "Err") || strings.HasPrefix(name, "err")) {
		return true
	}
	switch v := value.(type) {
	case nil:
		return false
	case *ast.CompositeLit:
		_, isMap := v.Type.(*ast.MapType)
		return !isMap || len(v.Elts) > 0
	case *ast.UnaryExpr:
		return v.Op != token.AND
	case *ast.CallExpr:
		switch f := v.Fun.(type) {
		case *ast.ArrayType: // a conversion
			return true
		case *ast.Ident:
			return f.Name == "len" || f.Name == "string"
		case *ast.SelectorExpr:
			id, ok := f.X.(*ast.Ident)
			// Everything in net/netip is an immutable value.
			return ok && (id.Name == "netip" || strings.HasPrefix(f.Sel.Name, "MustParse") || f.Sel.Name == "MustCompile" || f.Sel.Name == "Must" ||
				slices.Contains([]string{"errors.New", "fmt.Errorf", "strings.NewReplacer", "binary.Size"}, id.Name+"."+f.Sel.Name))
		}
		return false
	case *ast.FuncLit:
		return false
	}
	return true
}

func TestEveryPackageHasOneDoc(t *testing.T) {
	all, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	for dir, problems := range docProblems(all) {
		t.Errorf("%s: %s", dir, problems)
	}
}

func TestDocRulesCatch(t *testing.T) {
	for _, c := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"a/x.go": "// Package a is.\npackage a\n", "a/y.go": "package a\n"}, ""},
		{map[string]string{"cmd/kith/x.go": "// Kith does.\npackage main\n"}, ""},
		{map[string]string{"a/x_test.go": "package a\n"}, ""},
		{map[string]string{"a/x.go": "package a\n"}, "no doc"},
		{map[string]string{"a/x.go": "// Package a is.\npackage a\n", "a/y.go": "// Package a is.\npackage a\n"}, "2 doc"},
		{map[string]string{"a/x.go": "// Helpers.\npackage a\n"}, "Package a"},
	} {
		var all []*source
		for name, text := range c.files {
			s, err := parse(name, text)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		got := strings.Join(slices.Collect(mapValues(docProblems(all))), "; ")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%v: got %q, want %q", c.files, got, c.want)
		}
	}
}

func mapValues(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

func docProblems(all []*source) map[string]string {
	docs := make(map[string][]string)
	names := make(map[string]string)
	for _, s := range all {
		if s.test {
			continue
		}
		names[s.dir] = s.file.Name.Name
		if s.file.Doc != nil && strings.TrimSpace(s.file.Doc.Text()) != "" {
			docs[s.dir] = append(docs[s.dir], s.file.Doc.Text())
		}
	}
	found := make(map[string]string)
	for dir, name := range names {
		switch doc := docs[dir]; {
		case len(doc) == 0:
			found[dir] = "the package has no doc comment: say what it is, who owns its goroutines, what it does not do"
		case len(doc) > 1:
			found[dir] = fmt.Sprintf("the package has %d doc comments: keep one", len(doc))
		case name != "main" && !strings.HasPrefix(doc[0], "Package "+name+" "):
			found[dir] = "the doc comment does not begin with \"Package " + name + " \""
		}
	}
	return found
}

func TestFilesNeedNoMap(t *testing.T) {
	eachFile(t, func(s *source) []problem {
		if s.lines <= maxLines {
			return nil
		}
		return []problem{{s.path, fmt.Sprintf("%d lines: one file, one concept; part it", s.lines)}}
	})
}
