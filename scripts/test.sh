#!/bin/sh
# Everything: what it needs is installed, then each check and test runs. The first
# failure ends it.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

scripts/setup.sh
# A test against a peer fails where it would be skipped, if nothing excuses it: other
# users than root cannot make the networks that some of them run in.
if have_peers && [ "$(id -u)" = 0 ]; then
	export KITH_REQUIRE_PEERS=1
fi
scripts/check.sh
scripts/unit.sh
scripts/interop.sh
scripts/fuzz.sh
scripts/cross.sh
scripts/reproducible.sh
step "all checks and tests passed"
