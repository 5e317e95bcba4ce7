#!/bin/sh
# A test network on this machine: scripts/testnet.sh up|down|status|logs|files [options of `milon testnet`].
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
milon=$here/.venv/bin/milon
[ -x "$milon" ] || milon=milon
exec "$milon" testnet "$@"
