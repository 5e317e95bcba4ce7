#!/bin/sh
# Starts a new chain with this machine as its first node and only validator, or starts that node again.
# Usage: scripts/bootstrap-node.sh FOLDER [IP-ADDRESS-FOR-OTHERS] [PORT]
set -eu
if [ $# -lt 1 ]; then
    echo "usage: $0 FOLDER [IP-ADDRESS-FOR-OTHERS] [PORT]" >&2
    exit 2
fi
folder=$1
address=${2:-127.0.0.1}
port=${3:-4001}
here=$(cd "$(dirname "$0")/.." && pwd)
milon=$here/.venv/bin/milon
[ -x "$milon" ] || milon=milon

"$milon" init --data "$folder" --listen-port "$port" >/dev/null
account=$("$milon" keys show "$folder/keys/validator.key" | awk '$1 == "account" { print $2 }')
peer=$("$milon" keys show "$folder/keys/network.key" | awk '$1 == "peer_id" { print $2 }')
if [ ! -f "$folder/genesis.cbor" ]; then
    "$milon" genesis create "$folder/genesis.cbor" --chain-id "chain-$(date +%s)" \
        --validator "$account:1000000000:1000000" >/dev/null
fi
hash=$("$milon" genesis hash "$folder/genesis.cbor")
echo "others join with:"
echo "  milon join --bootstrap /ip4/$address/tcp/$port/p2p/$peer --genesis-hash $hash --role trainer"
if [ "$address" = 127.0.0.1 ]; then
    exec "$milon" join --data "$folder" --listen-port "$port"
fi
exec "$milon" join --data "$folder" --listen-host 0.0.0.0 --announce-host "$address" --listen-port "$port"
