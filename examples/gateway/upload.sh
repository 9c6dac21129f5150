#!/bin/sh
# Hands what waits in a spool to a backend, and forgets what that has taken. Needs no key.
#
#   upload.sh SPOOL COMMAND…     COMMAND reads JSON lines and succeeds once the backend has them durably:
#   upload.sh /var/lib/keyfold-gateway/spool.db curl --fail --silent --show-error --cert client.pem --data-binary @- https://…
#
# What was sent twice, since an answer was lost, has the same row: the backend keeps one.
set -eu
spool=$1
shift
batch=$(mktemp)
trap 'rm -f "$batch"' EXIT
while
    # Not half a batch: what is cut off would be forgotten as if it had been sent.
    "${GATEWAY:-gateway}" pending "$spool" 500 >"$batch" || exit
    [ -s "$batch" ]
do
    "$@" <"$batch"
    sed 's/^{"row":"\([0-9a-f]*\)".*/\1/' "$batch" | "${GATEWAY:-gateway}" done "$spool"
done
