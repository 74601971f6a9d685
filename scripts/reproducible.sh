#!/bin/sh
# Builds the binary twice, the second time from a copy in another folder and with an
# empty build cache, and compares the bytes.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

step "reproducible build"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/copy"
tar -cf - --exclude=./.git --exclude=./bin . | tar -xf - -C "$tmp/copy"

scripts/build.sh "$tmp/first"
GOCACHE=$tmp/cache "$tmp/copy/scripts/build.sh" "$tmp/second"
cmp "$tmp/first" "$tmp/second"
echo "ok  	$(sha256sum <"$tmp/first" | cut -c 1-64)"
