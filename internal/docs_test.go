package internal_test

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	testName = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9_]*`)
	mdLink   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// TestThreatsNameTestsThatExist keeps docs/THREATS.md honest: a defence is claimed
// only together with the test that proves it.
func TestThreatsNameTestsThatExist(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash("../docs/THREATS.md"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	for _, s := range all {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				have[f.Name.Name] = true
			}
		}
	}
	for _, name := range missingTests(string(text), have) {
		t.Errorf("docs/THREATS.md names %s, and there is no such test", name)
	}
	for line := range strings.Lines(string(text)) {
		if threatRow.MatchString(line) && !testName.MatchString(line) {
			t.Errorf("docs/THREATS.md: the row has no test: %s", strings.TrimSpace(line))
		}
	}
}

// threatRow is a row of the table of defences: a number in bold in its first cell.
var threatRow = regexp.MustCompile(`^\|\s*\*\*[A-Z][0-9]+\*\*`)

func missingTests(text string, have map[string]bool) []string {
	var missing []string
	for _, name := range testName.FindAllString(text, -1) {
		if !have[name] {
			missing = append(missing, name)
		}
	}
	return missing
}

func TestThreatRulesCatch(t *testing.T) {
	have := map[string]bool{"TestA": true}
	got := missingTests("| **A1** | x | `TestA`, `TestB/one` `FuzzC` |", have)
	if !slices.Equal(got, []string{"TestB", "FuzzC"}) {
		t.Errorf("missing tests are %v", got)
	}
	if !threatRow.MatchString("| **A1** | forged |") || threatRow.MatchString("| A1 | to come |") {
		t.Error("rows are not told apart")
	}
}

// TestLinksLeadSomewhere checks the relative links of all documents.
func TestLinksLeadSomewhere(t *testing.T) {
	documents := 0
	err := walk(".md", func(name, text string) error {
		documents++
		for _, m := range mdLink.FindAllStringSubmatch(text, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, ":") {
				continue
			}
			file := filepath.Join("..", filepath.Dir(filepath.FromSlash(name)), filepath.FromSlash(target))
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s links to %s: %v", name, target, err)
			}
		}
		return nil
	})
	if err != nil || documents < 5 {
		t.Errorf("%d documents read: %v", documents, err)
	}
}
