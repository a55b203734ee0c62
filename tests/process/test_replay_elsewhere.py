"""The recorded runs replay on a machine that lacks things, and under other Pythons: nothing real is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.home import ROOT, SCALE, TEST_SECONDS

RUNS = ROOT / "fixtures" / "runs"
FEW = [str(RUNS / f"{name}.trace.ndjson") for name in ("two-tools", "unicode", "earlier-context", "abort-in-tool")]

NO_NETWORK = ["unshare", "--map-root-user", "--net"]


def replay(
    *arguments: str, before: tuple[str, ...] = (), env: dict[str, str] | None = None, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, python, "-m", "nous", "replay", *arguments],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=4 * TEST_SECONDS * SCALE,
        check=False,
    )


def check_identical(out: subprocess.CompletedProcess[str], count: int) -> None:
    assert out.returncode == 0, out.stdout + out.stderr
    verdicts = [line.split()[0] for line in out.stdout.split("\n") if ".trace.ndjson" in line]
    assert verdicts == ["identical"] * count


@pytest.mark.parametrize("mode", ["engine", "daemon"])
def test_without_a_network(mode: str) -> None:
    if shutil.which("unshare") is None or subprocess.run([*NO_NETWORK, "true"], check=False).returncode:
        pytest.skip("network namespaces cannot be made here: replay was not run without a network")
    check_identical(replay("--mode", mode, *FEW, before=tuple(NO_NETWORK)), len(FEW))


@pytest.mark.parametrize("mode", ["engine", "daemon"])
@pytest.mark.parametrize("seed", ["0", "4242"])
def test_without_tools_and_in_another_place_and_language(mode: str, seed: str, tmp_path: Path) -> None:
    env = {
        "PATH": str(tmp_path),
        "HOME": str(tmp_path),
        "TZ": "Asia/Kolkata",
        "LANG": "tr_TR.UTF-8",
        "LC_ALL": "C",
        "PYTHONHASHSEED": seed,
    }
    check_identical(replay("--mode", mode, *FEW, env=env), len(FEW))


@pytest.mark.full
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_under_another_python(version: str, tmp_path: Path) -> None:
    found = find_python(version)
    if found is None:
        pytest.skip(f"Python {version} is not installed: the recordings were not replayed under it")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([found, "-m", "venv", str(tmp_path / "venv")], check=True, capture_output=True)
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--require-hashes",
        "-r",
        str(ROOT / "requirements.lock"),
    ]
    installed = subprocess.run(install, check=False, capture_output=True, timeout=600)
    if installed.returncode:
        pytest.skip(f"what nous needs cannot be installed for Python {version} here")
    recordings = sorted(str(path) for path in RUNS.glob("*.trace.ndjson"))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    check_identical(replay(*recordings, python=str(python), env=env), len(recordings))
    check_identical(replay("--mode", "daemon", *FEW, python=str(python), env=env), len(FEW))


def find_python(version: str) -> str | None:
    """Return an interpreter of that version: on the PATH, or beside our own under a version manager."""
    candidates = [shutil.which(f"python{version}")]
    versions = Path(sys.base_prefix).parent
    candidates += [str(p / "bin" / "python3") for p in sorted(versions.glob(f"{version}.*"))]
    for candidate in candidates:
        if candidate is None:
            continue
        out = subprocess.run([candidate, "--version"], check=False, capture_output=True, text=True, encoding="utf-8")
        if out.returncode == 0 and out.stdout.startswith(f"Python {version}."):
            return candidate
    return None
