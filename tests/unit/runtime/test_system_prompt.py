"""The system prompt and the workdir's AGENTS.md."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nous.runtime.system_prompt import MAX_AGENTS_BYTES, build_system_prompt, read_agents_file


def test_the_facts_of_a_run_are_in_it() -> None:
    text = build_system_prompt(override=None, workdir=Path("/w"), tools=("read", "bash"), agents_text="Be kind.")
    assert "You are an agent" in text
    assert "Working directory: /w" in text
    assert "Tools: read, bash" in text
    assert text.endswith("Be kind.")


def test_an_override_replaces_who_it_is_and_not_the_facts() -> None:
    text = build_system_prompt(override="You are a cat.", workdir=Path("/w"), tools=(), agents_text=None)
    assert text.startswith("You are a cat.")
    assert "You are an agent" not in text
    assert "Working directory: /w" in text
    assert "Tools: none" in text
    assert "AGENTS.md" not in text


def test_there_may_be_no_agents_file(tmp_path: Path) -> None:
    assert read_agents_file(tmp_path) is None


def test_an_agents_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_bytes("caf\u00e9\u2028\n".encode() + b"\xff")
    assert read_agents_file(tmp_path) == "caf\u00e9\u2028\n\ufffd"


def test_a_long_one_is_cut_at_a_character(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_bytes("\u20ac".encode() * MAX_AGENTS_BYTES)
    text = read_agents_file(tmp_path)
    assert text is not None
    assert text == "\u20ac" * (MAX_AGENTS_BYTES // 3) + "\n[cut at 32 KiB]"


def test_one_of_just_the_limit_is_whole(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_bytes(b"x" * MAX_AGENTS_BYTES)
    assert read_agents_file(tmp_path) == "x" * MAX_AGENTS_BYTES


def test_a_link_inside_the_workdir_is_followed(tmp_path: Path) -> None:
    (tmp_path / "docs.md").write_text("inside", encoding="utf-8")
    (tmp_path / "AGENTS.md").symlink_to("docs.md")
    assert read_agents_file(tmp_path) == "inside"


def test_a_link_that_leads_out_is_not(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside", encoding="utf-8")
    workdir = tmp_path / "work"
    workdir.mkdir()
    (workdir / "AGENTS.md").symlink_to(tmp_path / "secret")
    assert read_agents_file(workdir) is None


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, link_to_itself])
def test_what_is_no_file_holds_nobody_up(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "AGENTS.md")
    assert read_agents_file(tmp_path) is None
