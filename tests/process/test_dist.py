"""What is built and handed out works where there is no checkout: ``make dist`` and ``make verify-dist``."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.home import ROOT

BUILT = ("nous", "scripts", "fixtures", "protocol", "pyproject.toml", "README.md", "LICENSE")


@pytest.mark.full
def test_the_wheel_works_far_from_the_checkout_and_a_changed_one_is_noticed(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in BUILT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    subprocess.run(["sh", "scripts/dist.sh", sys.executable], cwd=copy, check=True, capture_output=True)
    rows = [line.split() for line in (copy / "dist" / "SHA256SUMS").read_text(encoding="ascii").split("\n")[:-1]]
    sums = {name: digest for digest, name in rows}
    assert {path.name for path in (copy / "dist").iterdir()} == {*sums, "SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((copy / "dist" / name).read_bytes()).hexdigest() == digest
    verify = ["sh", "scripts/verify_dist.sh", sys.executable]
    done = subprocess.run(verify, cwd=copy, capture_output=True, text=True, check=False)
    assert (done.returncode, "what was built works" in done.stdout) == (0, True), done.stderr
    wheel = next((copy / "dist").glob("*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"x")
    assert subprocess.run(verify, cwd=copy, capture_output=True, check=False).returncode != 0
