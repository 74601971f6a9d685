package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
)

const (
	// version is the version of a build from a checkout; a build by
	// "go install …@v1.2.3" knows its own.
	version = "0.1.0-dev"
	license = "GPL-3.0-or-later"
)

type versionCmd struct {
	SBOM bool `name:"sbom" help:"Print the parts list of this binary as CycloneDX 1.5 JSON."`
}

// Help implements kong.HelpProvider.
func (*versionCmd) Help() string {
	return "The parts list names every module in the binary with its version and its checksum in the Go checksum database.\n\n" +
		"Examples:\n\n" +
		"  kith version --json\n" +
		"  kith version --sbom > kith.cdx.json"
}

// versionInfo is the result of kith version --json.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // commit; empty when the build did not record it
	Modified bool   `json:"modified,omitempty"` // the checkout had changes
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	License  string `json:"license"`
}

// Run executes the command.
func (c *versionCmd) Run(_ context.Context, app *App) error {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return Fail(KindInternal, errors.New("this binary carries no build information"), "build it with modules, by make build")
	}
	if c.SBOM {
		doc, err := sbom(build)
		if err != nil {
			return err
		}
		if _, err := app.Stdout.Write(doc); err != nil {
			return fmt.Errorf("print the parts list: %w", err)
		}
		return nil
	}
	info := describe(build)
	return app.Print(info, fmt.Sprintf("kith %s (%s %s/%s), %s\n", info.Version, info.Go, info.OS, info.Arch, info.License))
}

func describe(build *debug.BuildInfo) versionInfo {
	info := versionInfo{
		Version: ownVersion(build),
		Go:      build.GoVersion,
		OS:      runtime.GOOS,
		Arch:    runtime.GOARCH,
		License: license,
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Revision = s.Value
		case "vcs.modified":
			info.Modified = s.Value == "true"
		}
	}
	return info
}

func ownVersion(build *debug.BuildInfo) string {
	if v := build.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return version
}
