#!/bin/sh
# All tests, in two runs side by side: those on a real Docker Engine mostly wait, the others mostly compute. $1 is the
# Python to run them with. With further arguments (files, options) there is one run of just these.
set -u
python=$1
shift
if [ $# -gt 0 ]; then
    exec "$python" -m pytest "$@"
fi
told=$(mktemp)
trap 'rm -f "$told"' EXIT
"$python" -m pytest -m engine >"$told" 2>&1 &
on_engine=$!
trap 'kill "$on_engine" 2>/dev/null' INT TERM
"$python" -m pytest -m "not engine"
others=$?
wait "$on_engine"
engine=$?
cat "$told"
[ "$others" -eq 0 ] && [ "$engine" -eq 0 ]
