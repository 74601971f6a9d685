#!/bin/sh
# Runs every fuzz target in the tree for FUZZTIME seconds (10), two at a time. When
# there are many, each gets less, so that all together take about FUZZBUDGET seconds
# (300) besides building. "fuzz.sh FOLDER TARGET" runs one.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

# attempt runs one target and leaves its output in $log.
attempt() {
	go test -run='^$' -fuzz="^$2\$" -fuzztime="${FUZZTIME}s" -parallel=1 "$1" >"$log" 2>&1
}

if [ $# = 2 ]; then
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	# The end of the time may fall into the middle of an input; go test then reports
	# a failure without an input. Such a run proves nothing, so it is done again.
	if attempt "$1" "$2" ||
		{ grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log" && attempt "$1" "$2"; }; then
		echo "ok  	$1	$2	$(grep -o 'execs: [0-9]*' "$log" | tail -n 1)"
		exit 0
	fi
	cat "$log" >&2
	sed -n 's/.*Failing input written to //p' "$log" | while read -r input; do
		cat "$1/$input" >&2
	done
	exit 1
fi

targets=$(grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . |
	sed -E 's|^(.*)/[^/]*:[0-9]+:func (Fuzz.*)$|\1 \2|' | sort)
[ -n "$targets" ] || exit 0
count=$(echo "$targets" | wc -l)
FUZZTIME=${FUZZTIME:-10}
most=$((${FUZZBUDGET:-300} * 2 / count))
[ "$FUZZTIME" -le "$most" ] || FUZZTIME=$most
[ "$FUZZTIME" -ge 1 ] || FUZZTIME=1
export FUZZTIME

step "fuzz $count targets, $FUZZTIME s each"
echo "$targets" | xargs -n 2 -P 2 scripts/fuzz.sh
