"""Each command's answer with --json, in success and in failure, pinned.  ``nous session`` has a page of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from nous.cli.main import COMMANDS
from tests.support.answers import answer
from tests.support.daemon import run_nous
from tests.support.home import ROOT, Home

GOLDEN: Final = Path(__file__).parent / "golden" / "cli.json"
FIXTURES: Final = ROOT / "fixtures" / "runs"
STREAMS: Final = {"serve", "prompt", "ctl", "session"}
"""They print lines of the protocol, and an object only when they are refused; session has a golden file of its own."""

# Each with the exit code it is to have.  In this order: the first one makes the state directory.
COMMAND_LINES: Final = [
    (0, "init"),
    (0, "init"),
    (8, "init --state-dir work"),
    (0, "config get daemon.max_runs"),
    (0, "config check"),
    (0, "config show"),
    (0, "config schema"),
    (6, "config get daemon.max_run"),
    (6, "config check --config broken.yaml"),
    (6, "config check --config absent.yaml"),
    (0, "trust work"),
    (0, "trust --list"),
    (0, "trust work --forget"),
    (6, "trust absent"),
    (6, "trust"),
    (0, "ext check"),
    (0, "ext list"),
    (8, "ext run .nous/extensions/no-deletes"),
    (0, "ext trust .nous/extensions/no-deletes"),
    (0, "ext list"),
    (0, "ext run .nous/extensions/no-deletes"),
    (0, "ext run .nous/extensions/no-deletes --hook tool_call"),
    (6, "ext run .nous/extensions/no-deletes --hook tool_call --input no-json"),
    (0, "ext trust .nous/extensions/no-deletes --forget"),
    (6, "ext check work"),
    (6, "ext nothing"),
    (0, "auth check"),
    (6, "auth check --provider"),
    (0, "models --provider vllm"),
    (6, "models --nothing"),
    (0, "gc"),
    (0, "gc --dry-run"),
    (6, "gc --nothing"),
    (0, "doctor"),
    (2, "doctor --provider openai --model m"),
    (0, "trace list"),
    (0, "trace show run-1"),
    (0, "trace validate plain.trace.ndjson"),
    (0, "trace diff plain.trace.ndjson plain.trace.ndjson"),
    (0, "trace export run-1"),
    (6, "trace show run-2"),
    (2, "trace validate broken.trace.ndjson"),
    (5, "trace diff plain.trace.ndjson tools.trace.ndjson"),
    (6, "trace nothing"),
    (0, "replay plain.trace.ndjson"),
    (2, "replay broken.trace.ndjson"),
    (6, "replay absent.trace.ndjson"),
    (0, "schema"),
    (6, "schema --nothing"),
    (6, "serve"),
    (6, "serve --provider openai"),
    (6, "serve --provider mock --state-dir absent"),
    (6, "serve --provider mock --workdir absent"),
    (6, "prompt hello"),
    (6, "prompt hello --provider mock --state-dir absent"),
    (6, "prompt"),
    (1, "ctl ping --socket absent.sock"),
    (6, "ctl ping"),
    (6, "ctl ping not-json --socket absent.sock"),
    (6, "nothing"),
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    plain = (FIXTURES / "plain-text.trace.ndjson").read_bytes()
    (home.root / "plain.trace.ndjson").write_bytes(plain)
    (home.root / "broken.trace.ndjson").write_bytes(plain.replace(b"agent_end", b"agent_END", 1))
    (home.root / "tools.trace.ndjson").write_bytes((FIXTURES / "two-tools.trace.ndjson").read_bytes())
    (home.root / "broken.yaml").write_text("daemon:\n  max_rums: 1\n", encoding="utf-8")
    shutil.copytree(ROOT / "fixtures" / "extensions" / "no-deletes", home.root / ".nous" / "extensions" / "no-deletes")
    (home.workdir / ".nous").mkdir()
    (home.workdir / ".nous" / "config.yaml").write_text("daemon: {max_runs: 3}\n", encoding="utf-8")
    return home


def test_every_answer_is_the_golden_one(home: Home) -> None:
    """GOLDEN_UPDATE=1 writes the file anew."""
    answers: dict[str, Any] = {}
    here = Home(home.root)
    here.workdir = home.root
    for exit_code, line in COMMAND_LINES:
        where = () if "--state-dir" in line else ("--state-dir", str(home.state))
        done = run_nous(here, *line.split(), *where, "--json", "--correlation-id", "golden")
        assert done.returncode == exit_code, (line, done)
        found = shorten(line, stable(home, answer(done)))
        answers[f"{len(answers) + 1:02}. nous {line}"] = {"exit": exit_code, **found}
        if line == "init":
            (home.state / "traces" / "run-1.ndjson").write_bytes((home.root / "plain.trace.ndjson").read_bytes())
    text = json.dumps(answers, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("GOLDEN_UPDATE"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_every_command_is_pinned_in_success_and_in_failure() -> None:
    codes: dict[str, set[int]] = {}
    for exit_code, line in COMMAND_LINES:
        codes.setdefault(line.split()[0], set()).add(exit_code)
    for name in set(COMMANDS) - {"session"}:
        assert codes[name] - {0}, name
        assert name in STREAMS or 0 in codes[name], name


def stable(home: Home, value: Any, key: str = "") -> Any:
    """Put a word in the place of what differs from run to run and from machine to machine."""
    if isinstance(value, dict):
        return {name: stable(home, item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [stable(home, item, key) for item in value]
    if key.endswith(("_ms", "_ns", "_seconds")) and isinstance(value, int | float):
        return "DURATION"
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value):
        return "TIME"
    return (
        re.sub(r"[0-9a-f]{32,}", "DIGEST", value).replace(str(home.workdir), "WORKDIR").replace(str(home.root), "HOME")
    )


def shorten(line: str, found: dict[str, Any]) -> dict[str, Any]:
    """Keep the shape of what other tests hold in full, and what a new setting, provider or check may change."""
    for prefix, shorter in SHORTER.items():
        if line.startswith(prefix) and found["ok"]:
            return found | shorter(found)
    if line.startswith("doctor"):
        return found | one_check(found)
    return found


def one_check(found: dict[str, Any]) -> dict[str, Any]:
    return {"checks": [row for row in found["checks"] if row["name"] == "provider_key"]}


SHORTER: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "config show": lambda found: {"settings": {"daemon.max_runs": found["settings"]["daemon.max_runs"]}},
    "config schema": lambda found: {"schema": found["schema"]["title"]},
    "auth check": lambda found: {"keys": [row for row in found["keys"] if row["provider"] in ("openai", "ollama")]},
    "schema": lambda found: {"documents": sorted(found["documents"])},
    "trace show": lambda found: {name: type(value).__name__ for name, value in found.items() if name != "ok"},
}
