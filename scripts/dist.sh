#!/bin/sh
# Build the source archive and the wheel into dist/, with their hashes: scripts/dist.sh PYTHON.  Offline: the build
# backend is pinned in requirements.lock and installed in PYTHON's environment.
set -eu
cd "$(dirname "$0")/.."
python=$1
rm -rf dist
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
"$python" -m hatchling build -d dist
cd dist
if command -v sha256sum >/dev/null; then sha256sum nous_core-*; else shasum -a 256 nous_core-*; fi >SHA256SUMS
