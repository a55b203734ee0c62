"""A model's commands cannot read the keys that processes of nous hold, whichever command they belong to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from nous.cli.main import COMMANDS
from tests.support.daemon import NOUS
from tests.support.home import ROOT, SCALE, TEST_SECONDS, Home, Setup

KEY: Final = "sk-proj-2236067977499789"
READS_ALL: Final = "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c ^LANG=; " + (
    "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c sk-proj-2236067977; true"
)
"""How many environments could be read at all, and how many variables with the key were in them."""


def as_ordinary_user() -> list[str]:
    """Return what takes root's capabilities, which open every process; others have none."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root reads everything, and there is no setpriv")
    return [setpriv, "--bounding-set", "-all", "--inh-caps", "-all", "--"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_tool_reads_no_key_from_any_process_of_nous(tmp_path: Path) -> None:
    home = Home(tmp_path)
    script = [[{"tool_call": {"name": "bash", "arguments": {"command": READS_ALL}}}], [{"text": "Done."}]]
    done = subprocess.run(
        [*as_ordinary_user(), *NOUS, "prompt", "--json", *home.arguments(Setup(script=script)), "go"],
        cwd=home.workdir,
        env={**home.environ(), "OPENAI_API_KEY": KEY},
        capture_output=True,
        timeout=TEST_SECONDS * SCALE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (result,) = [event["payload"]["result"] for event in events if event["type"] == "tool_execution_end"]
    readable, with_key = map(int, result.split())
    assert readable > 0
    assert with_key == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux closes a process's memory to its user")
@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"serve"}))
def test_every_command_closes_its_memory_before_it_does_anything(name: str) -> None:
    """``nous serve`` does so right after ``ready`` and before its first child (test_start.py)."""
    program = f"""
import sys
from nous.cli import main
from nous.system import prctl
help_text, _ = main.COMMANDS[{name!r}]
main.COMMANDS[{name!r}] = (help_text, lambda arguments: prctl._load()(3, 0, 0, 0, 0))
sys.exit(main.main([{name!r}]))
"""
    limit = TEST_SECONDS * SCALE
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=limit, check=False).returncode == 0
