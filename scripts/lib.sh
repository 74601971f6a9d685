# Functions for the other scripts, which read this file with ".".

PATH=$PATH:/usr/sbin:/sbin # where Debian keeps ip and nft

# step TEXT says which part begins.
step() {
	printf '\n=== %s\n' "$*"
}

# retry COMMAND… runs a command that depends on a mirror, up to four times.
retry() {
	try=1
	until "$@"; do
		if [ "$try" -ge 4 ]; then
			echo "failed $try times: $*" >&2
			return 1
		fi
		sleep $((try * 5))
		try=$((try + 1))
	done
}

# have_peers succeeds when the other implementations can be run. The Python is Debian's,
# which sees Debian's module.
have_peers() {
	command -v dhtnode >/dev/null && command -v ip >/dev/null && command -v nft >/dev/null &&
		/usr/bin/python3 -c 'import opendht' 2>/dev/null
}

# go_tool NAME ARGS… runs a development tool at the version that tools/go.mod pins.
go_tool() {
	go tool -modfile=tools/go.mod "$@"
}
