package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
)

// The types below are the part of CycloneDX 1.5 (ECMA-424's forerunner) that a Go
// binary can fill in from what it knows about itself. There is no time stamp and no
// serial number, so that the same binary always prints the same bytes.
type (
	cdxDocument struct {
		Schema       string          `json:"$schema"`
		Format       string          `json:"bomFormat"`
		SpecVersion  string          `json:"specVersion"`
		Version      int             `json:"version"`
		Metadata     cdxMetadata     `json:"metadata"`
		Components   []cdxComponent  `json:"components"`
		Dependencies []cdxDependency `json:"dependencies"`
	}
	cdxMetadata struct {
		Component cdxComponent `json:"component"`
	}
	cdxComponent struct {
		Type       string        `json:"type"`
		Ref        string        `json:"bom-ref"`
		Name       string        `json:"name"`
		Version    string        `json:"version"`
		PURL       string        `json:"purl"`
		Licenses   []cdxLicense  `json:"licenses,omitempty"`
		Hashes     []cdxHash     `json:"hashes,omitempty"`
		Properties []cdxProperty `json:"properties,omitempty"`
	}
	cdxLicense struct {
		License struct {
			ID string `json:"id"`
		} `json:"license"`
	}
	cdxHash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	cdxProperty struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	cdxDependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn,omitempty"`
	}
)

// sbom returns the parts list of a binary as indented JSON.
func sbom(build *debug.BuildInfo) ([]byte, error) {
	own := cdxModule(build.Main.Path, ownVersion(build), "")
	own.Type = "application"
	own.Licenses = make([]cdxLicense, 1)
	own.Licenses[0].License.ID = license

	doc := cdxDocument{
		Schema:      "http://cyclonedx.org/schema/bom-1.5.schema.json",
		Format:      "CycloneDX",
		SpecVersion: "1.5",
		Version:     1,
		Metadata:    cdxMetadata{Component: own},
		// The standard library is linked in like any module, and has advisories.
		Components: []cdxComponent{cdxModule("std", strings.TrimPrefix(build.GoVersion, "go"), "")},
	}
	for _, dep := range build.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		doc.Components = append(doc.Components, cdxModule(dep.Path, dep.Version, dep.Sum))
	}
	slices.SortFunc(doc.Components, func(a, b cdxComponent) int { return strings.Compare(a.Ref, b.Ref) })

	// The build information has no edges between modules: all hang on the program.
	all := cdxDependency{Ref: own.Ref}
	for _, c := range doc.Components {
		all.DependsOn = append(all.DependsOn, c.Ref)
	}
	doc.Dependencies = []cdxDependency{all}

	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return nil, fmt.Errorf("encode the parts list: %w", err)
	}
	return b.Bytes(), nil
}

// cdxModule describes a Go module. Its sum is that of go.sum: "h1:" and the base64
// of a SHA-256 over the hashes of its files, in which form other tools for Go write
// it into CycloneDX, too.
func cdxModule(path, version, sum string) cdxComponent {
	purl := "pkg:golang/" + path + "@" + version
	c := cdxComponent{Type: "library", Ref: purl, Name: path, Version: version, PURL: purl}
	if sum == "" {
		return c
	}
	c.Properties = []cdxProperty{{Name: "kith:go.sum", Value: sum}}
	if digest, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sum, "h1:")); err == nil && strings.HasPrefix(sum, "h1:") {
		c.Hashes = []cdxHash{{Algorithm: "SHA-256", Content: hex.EncodeToString(digest)}}
	}
	return c
}
