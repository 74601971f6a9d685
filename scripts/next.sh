#!/bin/sh
# Says what to do with the node that make run is about to start.
port=$1
case $port in
'' | 0* | *[!0-9]* | ??????*) valid=no ;;
*) [ "$port" -le 65535 ] && valid=yes || valid=no ;;
esac
if [ $valid = no ]; then
	echo "PORT=$port is not a port from 1 to 65535; write it like: make run PORT=4222" >&2
	exit 2
fi
cat <<EOF
Starting a DHT node on UDP port $port; end it with Ctrl-C. In a second terminal, try:

  bin/kith dht ping 127.0.0.1:$port
  bin/kith dht put greeting --text hello --bootstrap 127.0.0.1:$port
  bin/kith dht get greeting --bootstrap 127.0.0.1:$port
  bin/kith dht listen greeting --bootstrap 127.0.0.1:$port
  bin/kith dht info --bootstrap 127.0.0.1:$port

It is the first node of a network of its own. To join one that exists:
make run ARGS='--bootstrap HOST:PORT'; for a prompt: make run ARGS=--interactive

EOF
