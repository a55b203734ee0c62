#!/bin/sh
# Make the virtual environment: scripts/setup.sh PYTHON VENV (make setup calls it, and knows when it is needed).
# Everything from outside is pinned by version and hash in requirements.lock, the build backend too.
set -eu

python=$1
venv=$2

fail() {
    printf 'make setup: %s\n' "$1" >&2
    exit 1
}

command -v "$python" >/dev/null ||
    fail "$python was not found; nous needs Python 3.11 or newer (make setup PYTHON=/path/to/python3.11)."
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "$python does not run."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is Python $version; nous needs 3.11 or newer (make setup PYTHON=/path/to/python3.11)."
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module (Debian and Ubuntu: apt-get install python3-venv)."

# An environment of another Python, or one that was cut off, is made anew; a good one is only brought up to date.
if [ "$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" != "$version" ]; then
    "$python" -m venv --clear "$venv"
fi

install() {
    "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@"
}
install --require-hashes --requirement requirements.lock
# Until 0.1.0 the distribution was called nous.
if "$venv/bin/python" -c 'import importlib.metadata as m, sys; sys.exit(m.version("nous") != "0.1.0")' 2>/dev/null; then
    "$venv/bin/python" -m pip uninstall --quiet --yes --disable-pip-version-check nous
fi
install --no-deps --no-build-isolation --editable .
# What pip compiles of other packages: without it each start would, where byte code may not be written.
"$venv/bin/python" -m compileall -q nous
"$venv/bin/python" -m pip check --disable-pip-version-check >/dev/null ||
    fail "requirements.lock does not hold all that pyproject.toml needs (make lock)."
echo "$venv is ready: Python $version, $("$venv/bin/python" -c 'import nous; print("nous", nous.__version__)')."
