"""The milestone gate passes here, without a network too, and fails where something was broken on purpose."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest

from scripts.gate.__main__ import OFFLINE
from scripts.gate.checks import ROOT
from scripts.gate.freeze import broken_promises, current
from scripts.gate.mutations import COPIED, MUTATIONS, Mutation, mutate, notices, tried

CRITERIA = ("A1", "A2", "B1", "B2", "C1")
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
with socket.socket() as sock:
    fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
os.execvp(sys.argv[1], sys.argv[1:])
"""
NO_NETWORK = ["unshare", "--map-root-user", "--net", sys.executable, "-c", LOOPBACK_UP]
"""Loopback and nothing else: a stage has a server of its own."""
GATE = [sys.executable, "-m", "scripts.gate"]


def run_gate(*argv: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=600, check=False)


@pytest.mark.full
def test_every_criterion_has_two_lines_and_passes_with_the_network_down() -> None:
    argv = GATE
    if shutil.which("unshare") and subprocess.run([*NO_NETWORK, "true"], check=False).returncode == 0:
        argv = [*NO_NETWORK, *GATE]
    done = run_gate(*argv)
    lines = done.stdout.decode().split("\n")[:-1]
    assert [line for line in lines if not line.startswith("PASS ")] == []
    assert done.returncode == 0
    for criterion in CRITERIA:
        assert sum(line.startswith(f"PASS {criterion}.") for line in lines) >= 2, criterion
    assert len(lines) == len(OFFLINE) + 1


def test_it_says_what_it_does_not_know() -> None:
    done = run_gate(*GATE, "--only", "Z9")
    assert done.returncode == 2
    assert b"Z9" in done.stderr


def test_a_new_optional_field_breaks_no_promise() -> None:
    """And a field that is gone, or newly demanded of a client, does."""
    field = {"required": False, "shape": {"type": "string"}}
    now, before = current(), deepcopy(current())
    now["commands.schema.json"]["ping"]["payload.new"] = field
    assert broken_promises(before, now) == []
    now["commands.schema.json"]["ping"]["payload.new"] = {**field, "required": True}
    assert broken_promises(before, now) == ["commands.schema.json: ping.payload.new is demanded"]
    reasons = now["events.schema.json"]["agent_end"]["payload.stop_reason"]["shape"]["enum"]
    reasons.append("new")
    assert broken_promises(before, now) == ["commands.schema.json: ping.payload.new is demanded"]
    reasons.remove("length")
    assert "events.schema.json: agent_end.payload.stop_reason is not what it was" in broken_promises(before, now)
    reasons.append("length")
    del now["commands.schema.json"]["ping"]
    assert broken_promises(before, now) == ["commands.schema.json: ping is gone"]


def test_every_criterion_has_a_breakage_and_every_breakage_its_place(tmp_path: Path) -> None:
    assert len(MUTATIONS) >= 10
    assert {mutation.check.partition(".")[0] for mutation in MUTATIONS} >= set(CRITERIA)
    for number, mutation in enumerate(MUTATIONS):
        copy = tmp_path / str(number)
        (copy / mutation.file).parent.mkdir(parents=True)
        shutil.copy(ROOT / mutation.file, copy / mutation.file)
        mutate(copy, mutation)
        assert (copy / mutation.file).read_bytes() != (ROOT / mutation.file).read_bytes()


def test_a_breakage_is_noticed_and_an_unbroken_copy_is_not(tmp_path: Path) -> None:
    mutation = next(found for found in MUTATIONS if found.check == "A1.3")
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    assert notices(tmp_path, mutation) is None
    assert tried(mutation)


@pytest.mark.full
@pytest.mark.parametrize("mutation", MUTATIONS, ids=[f"{each.check} {each.what}" for each in MUTATIONS])
def test_every_breakage_is_noticed(mutation: Mutation) -> None:
    assert tried(mutation)


def test_the_gate_has_a_target() -> None:
    assert "python -m scripts.gate" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert os.access(ROOT / "scripts" / "gate" / "frozen.json", os.R_OK)
