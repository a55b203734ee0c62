#!/bin/sh
# Use what was built as a stranger would: scripts/verify_dist.sh PYTHON.  The hashes fit; the wheel, installed beside the
# pinned dependencies and far from this checkout, answers a prompt and replays the recorded runs.
set -eu
cd "$(dirname "$0")/.."
python=$1
top=$(pwd)
place=$(mktemp -d "${TMPDIR:-/tmp}/nous-dist.XXXXXX")
trap 'rm -rf "$place"' EXIT

if command -v sha256sum >/dev/null; then check="sha256sum --check --quiet"; else check="shasum -a 256 --check --quiet"; fi
(cd dist && $check SHA256SUMS)

# The dependencies are those of PYTHON's environment; nous itself comes from the wheel alone.
"$python" -m venv --without-pip "$place/venv"
site=$("$place/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" - "$site" "$top"/dist/*.whl <<'PY'
import sys, sysconfig, zipfile
from pathlib import Path
site, wheel = Path(sys.argv[1]), sys.argv[2]
zipfile.ZipFile(wheel).extractall(site)
theirs = Path(sysconfig.get_path("purelib"))
for found in theirs.iterdir():
    if not found.name.startswith(("_nous", "_editable", "nous", "__pycache__", "pip", "distutils")):
        if not (site / found.name).exists():
            (site / found.name).symlink_to(found)
PY
cd "$place"
nous="$place/venv/bin/python -P -m nous"
$nous --version
test "$($nous prompt hello --provider mock --bootstrap --state-dir "$place/state")" = "mock response: hello"
$nous replay "$top"/fixtures/runs/*.ndjson >/dev/null
$place/venv/bin/python -P -c 'import nous, pathlib, sys; sys.exit(str(pathlib.Path(nous.__file__)).startswith(sys.argv[1]))' "$top"
echo "what was built works"
