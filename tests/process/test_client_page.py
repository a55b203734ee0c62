"""docs/client.md: its programs are executed, and it names everything public of nous.client."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Final

import pytest

import nous.client
from nous.client import Client, EventStream, Pending
from tests.support.home import ROOT
from tests.support.pages import Block, fresh_machine, read_blocks, run

PAGE: Final = (ROOT / "docs/client.md").read_text(encoding="utf-8")
BLOCKS: Final = read_blocks(PAGE)
PROGRAMS: Final = list(zip(BLOCKS[::2], BLOCKS[1::2], strict=True))

INTERNAL: Final = {"settle", "fail"}
"""Methods of :class:`Pending` that the client itself calls."""


@pytest.mark.parametrize(("program", "shown"), PROGRAMS, ids=[str(number) for number in range(len(PROGRAMS))])
def test_a_program_prints_what_the_page_shows(program: Block, shown: Block, tmp_path: Path) -> None:
    assert (program.language, shown.language) == ("python", "text")
    environ = {**fresh_machine(tmp_path), "PYTHONPATH": str(ROOT)}
    out = run([sys.executable, "-c", program.text], environ, tmp_path)
    assert (out.returncode, out.stderr, out.stdout) == (0, "", shown.text)


def test_every_public_name_stands_there() -> None:
    assert [name for name in nous.client.__all__ if not re.search(rf"\b{name}\b", PAGE)] == []


@pytest.mark.parametrize("kind", [Client, EventStream, Pending])
def test_every_public_method_stands_there(kind: type) -> None:
    names = {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")} - INTERNAL
    named = set(re.findall(r"`(?:await )?(?:Client\.)?(\w+)", PAGE))
    assert names - named == set()


@pytest.mark.parametrize("name", ["spawn", "connect", "start", "close", "events"])
def test_parameters_stand_there_with_their_defaults(name: str) -> None:
    (shown,) = set(re.findall(rf"`(?:await )?(?:Client\.)?{name}\(([^`]*)\)`", PAGE))
    parameters = [p for p in inspect.signature(getattr(Client, name)).parameters.values() if p.name != "self"]
    expected = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    assert [part for part in shown.split(", ") if part != "*"] == expected
