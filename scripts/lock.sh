#!/bin/sh
# Make requirements.lock from requirements.in: scripts/lock.sh PYTHON [flags of pip-compile].
# Run it with the oldest Python supported: its needs are a superset.  Hashes are those of every file of a release,
# so that one lock serves all platforms; no address of an index is written.
set -eu

python=$1
shift

"$python" -m venv --clear build/lock
build/lock/bin/python -m pip install --quiet --disable-pip-version-check pip-tools==7.6.2
CUSTOM_COMPILE_COMMAND="make lock" build/lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
    --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
    --output-file requirements.lock "$@" requirements.in
