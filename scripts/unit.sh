#!/bin/sh
# All tests but those against other implementations in interop/.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

step "tests"
# shellcheck disable=SC2046 # a list of packages
go test -race -shuffle=on -timeout=10m $(go list ./... | grep -v '/interop\(/\|$\)')
