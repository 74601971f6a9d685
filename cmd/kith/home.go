package main

import (
	"errors"
	"path/filepath"
)

// HomeDir returns the folder of the node: --home, else KITH_HOME, else a folder
// "kith" where the platform (runtime.GOOS) keeps the data of programs. It creates
// nothing.
func (a *App) HomeDir(goos string) (string, error) {
	dir := a.Home
	if dir == "" {
		dir = a.Getenv("KITH_HOME")
	}
	if dir == "" {
		dir = dataDir(goos, a.Getenv)
	}
	if dir == "" {
		return "", Fail(KindUsage, errors.New("cannot tell where this user's data is kept"), "say it with --home DIR")
	}
	return filepath.Clean(dir), nil
}

// dataDir returns "" when the environment does not say. A relative path in
// XDG_DATA_HOME is ignored, as the XDG base directory specification asks.
func dataDir(goos string, getenv func(string) string) string {
	home := getenv("HOME")
	switch goos {
	case "windows":
		if dir := getenv("LocalAppData"); dir != "" {
			return filepath.Join(dir, "kith")
		}
		return ""
	case "darwin", "ios":
		if home != "" {
			return filepath.Join(home, "Library", "Application Support", "kith")
		}
		return ""
	}
	if dir := getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "kith")
	}
	if home != "" {
		return filepath.Join(home, ".local", "share", "kith")
	}
	return ""
}
