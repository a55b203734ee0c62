"""The pages about hardening name what exists, and the workflows call what exists, pinned."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.home import ROOT

PAGES: Final = sorted([*(ROOT / "docs" / "hardening").glob("*.md"), ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md"])
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS: Final = frozenset(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

_CODE: Final = re.compile(r"`([^`\n]+)`")
_LINK: Final = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_PATH: Final = re.compile(r"^(tests|nous|scripts|docs|protocol|fixtures|\.github)(/[\w.-]+)*/?$")
_MAKE: Final = re.compile(r"\bmake ([a-z0-9-]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = {name for name in _CODE.findall(text) if _PATH.match(name)}
    assert [name for name in named if not (ROOT / name).exists()] == []
    linked = [name for name in _LINK.findall(text) if "://" not in name]
    assert [name for name in linked if not (page.parent / name).exists()] == []
    commands = {target for code in _CODE.findall(text) for target in _MAKE.findall(code)}
    assert commands <= TARGETS


def test_promises_are_numbered_and_each_names_its_proof() -> None:
    text = (ROOT / "docs" / "hardening" / "contracts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| NFR-(\d+) \|(.*)\|$", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    for number, row in rows:
        proof = row.split("|")[-1]
        assert _CODE.search(proof), f"NFR-{number} names no proof"


def test_there_are_ten_risks_with_all_their_columns() -> None:
    text = (ROOT / "docs" / "hardening" / "risks.md").read_text(encoding="utf-8")
    rows = [row.split(" | ") for row in re.findall(r"^\| R-\d+ \| .*$", text, re.MULTILINE)]
    assert len(rows) == 10
    assert {len(row) for row in rows} == {8}
    assert {level for row in rows for level in row[2:4]} <= {"high", "medium", "low"}


def test_a_row_of_a_framework_is_a_control_or_a_gap() -> None:
    text = (ROOT / "docs" / "hardening" / "frameworks.md").read_text(encoding="utf-8")
    rows = [row for row in re.findall(r"^\| [a-zA-Z].*$", text, re.MULTILINE) if "control, or gap" not in row]
    assert len(rows) >= 25
    assert [row for row in rows if "gap" not in row and not _CODE.search(row)] == []


def steps_of(workflow: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert document["permissions"] == {"contents": "read"}
    return [step for job in document["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_pinned_and_calls_what_exists(workflow: Path) -> None:
    document = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    targets = {
        name
        for job in document["jobs"].values()
        for name in job.get("strategy", {}).get("matrix", {}).get("target", [])
    }
    for step in steps_of(workflow):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
        targets |= set(_MAKE.findall(step.get("run", "")))
    assert targets <= TARGETS
    text = workflow.read_text(encoding="utf-8")
    assert text.count("@") == len(re.findall(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+\n", text))


def test_every_supported_python_and_both_systems_are_tested() -> None:
    matrix = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]["test"][
        "strategy"
    ]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos"}


# -- make hooks


def git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.invalid", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the hook and with a ``make check`` that says that it ran, and a place to push to."""
    work = tmp_path / "work"
    (work / "scripts" / "hooks").mkdir(parents=True)
    for name in ("scripts/install_hooks.sh", "scripts/hooks/pre-push"):
        (work / name).write_bytes((ROOT / name).read_bytes())
        (work / name).chmod(0o755)
    (work / "Makefile").write_text("check:\n\t@echo checked && test ! -e broken\n", encoding="utf-8")
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "first"]):
        assert git(work, *arguments).returncode == 0
    assert git(tmp_path, "init", "-q", "--bare", "there.git").returncode == 0
    assert git(work, "remote", "add", "origin", str(tmp_path / "there.git")).returncode == 0
    return work


def install(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "scripts/install_hooks.sh"], cwd=checkout, capture_output=True, text=True, check=False)


def test_a_push_is_checked_once_the_hooks_are_set(checkout: Path) -> None:
    for _ in range(2):
        assert install(checkout).returncode == 0
    (checkout / "broken").touch()
    assert git(checkout, "push", "-q", "origin", "main").returncode != 0
    (checkout / "broken").unlink()
    pushed = git(checkout, "push", "-q", "origin", "main")
    assert (pushed.returncode, "checked" in pushed.stdout + pushed.stderr) == (0, True)


def test_a_hook_of_somebodys_own_stays(checkout: Path) -> None:
    own = checkout / ".git" / "hooks" / "pre-push"
    own.parent.mkdir(exist_ok=True)
    own.write_text("#!/bin/sh\n", encoding="utf-8")
    done = install(checkout)
    assert (done.returncode, "is yours" in done.stderr) == (8, True)
    assert own.read_text(encoding="utf-8") == "#!/bin/sh\n"


def test_outside_a_checkout_it_says_so(checkout: Path) -> None:
    (checkout / ".git").rename(checkout / "not-git")
    assert install(checkout).returncode == 6
