#!/bin/sh
# Builds everything for the platforms that Kith supports. It runs nothing there.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

step "cross-build"
for target in linux/amd64 linux/arm64 linux/arm windows/amd64 darwin/arm64 android/arm64; do
	CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go build -trimpath -o /dev/null ./...
	echo "ok  	$target"
done
