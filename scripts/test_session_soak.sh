#!/usr/bin/env bash
# Many real processes on one session store: 64 on one session, 128 on sessions of their own, and some beside one that
# prunes.  One PASS or FAIL line per requirement; exits non-zero on any FAIL.  Options: see scripts/session_soak.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || {
    echo "there is no $python: type make setup, or set PYTHON" >&2
    exit 7
}
exec "$python" -m scripts.session_soak "$@"
