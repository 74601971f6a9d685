#!/bin/sh
# Tests against other implementations, one package at a time: their processes have
# deadlines of their own, which a busy machine would break.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

step "interoperation"
go test -race -shuffle=on -timeout=10m -p=1 ./interop/...
