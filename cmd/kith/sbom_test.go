package main

import (
	"encoding/json"
	"runtime/debug"
	"testing"
)

func TestSBOM(t *testing.T) {
	build := &debug.BuildInfo{
		GoVersion: "go1.26.8",
		Main:      debug.Module{Path: "github.com/kith-im/kith", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "golang.org/x/net", Version: "v0.59.0", Sum: "h1:AAEC"},
			{Path: "example.org/old", Version: "v1.0.0", Replace: &debug.Module{Path: "example.org/new", Version: "v2.0.0"}},
		},
	}
	text, err := sbom(build)
	if err != nil {
		t.Fatal(err)
	}
	var doc cdxDocument
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	own := doc.Metadata.Component
	if doc.Format != "CycloneDX" || doc.SpecVersion != "1.5" || own.Version != version || own.Licenses[0].License.ID != license {
		t.Errorf("head is %+v", doc)
	}
	var refs []string
	for _, c := range doc.Components {
		refs = append(refs, c.PURL)
	}
	want := []string{"pkg:golang/example.org/new@v2.0.0", "pkg:golang/golang.org/x/net@v0.59.0", "pkg:golang/std@1.26.8"}
	for i := range want {
		if len(refs) != len(want) || refs[i] != want[i] {
			t.Fatalf("components are %v, want %v", refs, want)
		}
	}
	if h := doc.Components[1].Hashes; len(h) != 1 || h[0].Content != "000102" {
		t.Errorf("hashes are %v", h)
	}
	if d := doc.Dependencies; len(d) != 1 || d[0].Ref != own.Ref || len(d[0].DependsOn) != len(want) {
		t.Errorf("dependencies are %+v", d)
	}
	again, err := sbom(build)
	if err != nil || string(again) != string(text) {
		t.Errorf("a second list differs: %v", err)
	}
}
