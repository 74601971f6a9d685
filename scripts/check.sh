#!/bin/sh
# Format, vet, static analysis, and the rules of the house (internal/*_test.go).
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

step "format"
wrong=$(go_tool gofumpt -l . && gofmt -l .)
if [ -n "$wrong" ]; then
	echo "not formatted; run: go tool -modfile=tools/go.mod gofumpt -w ." >&2
	echo "$wrong" >&2
	exit 1
fi

step "go vet"
go vet ./...

step "staticcheck"
go_tool staticcheck ./...

step "rules of the house"
go test ./internal
