#!/bin/sh
# All tests, in three runs side by side: those on a real Docker Engine and those with whole daemons mostly wait, the others
# mostly compute. $1 is the Python to run them with. With further arguments (files, options) there is one run of just these.
# A test that hangs is ended by pytest; a run that hangs all the same is ended here, so that what the others said is seen.
set -u
python=$1
shift
if [ $# -gt 0 ]; then
    exec "$python" -m pytest "$@"
fi
engine_told=$(mktemp) daemons_told=$(mktemp)
trap 'rm -f "$engine_told" "$daemons_told"' EXIT
longest=""
command -v timeout >/dev/null 2>&1 && longest="timeout --foreground -k 30 2400"
# shellcheck disable=SC2086
$longest "$python" -m pytest -m engine >"$engine_told" 2>&1 &
on_engine=$!
$longest "$python" -m pytest -m "not engine" tests/system >"$daemons_told" 2>&1 &
on_daemons=$!
trap 'kill "$on_engine" "$on_daemons" 2>/dev/null' INT TERM
$longest "$python" -m pytest -m "not engine" --ignore=tests/system
others=$?
wait "$on_daemons"
daemons=$?
wait "$on_engine"
engine=$?
cat "$daemons_told" "$engine_told"
[ "$others" -eq 0 ] && [ "$daemons" -eq 0 ] && [ "$engine" -eq 0 ]
