#!/bin/sh
# Installs what the tests need: a C compiler (for the race detector only), the
# implementations to test against, and the Go modules. Debian packages need root or
# sudo; without either, it says what is missing and goes on, and the tests that
# need it are skipped. With KITH_REQUIRE_PEERS=1 that is an error.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
		sudo env DEBIAN_FRONTEND=noninteractive "$@"
	else
		return 1
	fi
}

# mask_service keeps Debian's dhtnode from becoming a server: its package starts one
# that joins the public network on port 4222, and tests need only the program.
mask_service() {
	unit=/etc/systemd/system/dhtnode.service
	if [ ! -e /lib/systemd/system/dhtnode.service ] && [ ! -e "$unit" ]; then
		as_root mkdir -p "${unit%/*}"
		as_root ln -s /dev/null "$unit"
		echo "the service dhtnode is masked; to have it: systemctl unmask dhtnode"
	fi
}

missing=
command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
have_peers || missing="$missing dhtnode python3-opendht iproute2 nftables"
if [ -n "$missing" ] && command -v apt-get >/dev/null; then
	step "install$missing"
	export DEBIAN_FRONTEND=noninteractive
	if as_root true; then
		retry as_root apt-get -q update
		have_peers || mask_service
		# shellcheck disable=SC2086 # a list of words
		retry as_root apt-get -qy install --no-install-recommends $missing
	fi
fi
if ! have_peers; then
	echo "not installed:$missing; tests against other implementations cannot run" >&2
	[ "${KITH_REQUIRE_PEERS:-}" != 1 ] || exit 1
fi

if ! command -v go >/dev/null; then
	echo "Go is missing: get version 1.26 or later from https://go.dev/dl and unpack it to /usr/local/go" >&2
	exit 1
fi
step "Go modules"
retry go list -deps -test ./... >/dev/null
retry go list -modfile=tools/go.mod -deps tool >/dev/null
