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


STATE = Path("/nonexistent/state")


def test_there_may_be_no_agents_file(tmp_path: Path) -> None:
    assert read_agents_file(tmp_path, STATE) is None


def test_an_agents_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_bytes("caf\u00e9\u2028\n".encode() + b"\xff")
    assert read_agents_file(tmp_path, STATE) == "caf\u00e9\u2028\n\ufffd"


def test_a_long_one_is_cut_at_a_character(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_bytes("\u20ac".encode() * MAX_AGENTS_BYTES)
    text = read_agents_file(tmp_path, STATE)
    assert text is not None
    assert text == "\u20ac" * (MAX_AGENTS_BYTES // 3) + "\n[cut at 32 KiB]"


def test_one_of_just_the_limit_is_whole(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_bytes(b"x" * MAX_AGENTS_BYTES)
    assert read_agents_file(tmp_path, STATE) == "x" * MAX_AGENTS_BYTES


def test_a_link_inside_the_workdir_is_followed(tmp_path: Path) -> None:
    (tmp_path / "docs.md").write_text("inside", encoding="utf-8")
    (tmp_path / "AGENTS.md").symlink_to("docs.md")
    assert read_agents_file(tmp_path, STATE) == "inside"


def test_a_link_that_leads_out_is_not(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside", encoding="utf-8")
    workdir = tmp_path / "work"
    workdir.mkdir()
    (workdir / "AGENTS.md").symlink_to(tmp_path / "secret")
    assert read_agents_file(workdir, STATE) is None


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, link_to_itself])
def test_what_is_no_file_holds_nobody_up(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "AGENTS.md")
    assert read_agents_file(tmp_path, STATE) is None


def test_a_link_into_the_state_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".state/sessions").mkdir(parents=True)
    (tmp_path / ".state/sessions/s.ndjson").write_text("secret")
    (tmp_path / "AGENTS.md").symlink_to(".state/sessions/s.ndjson")
    assert read_agents_file(tmp_path, tmp_path / ".state") is None


def test_those_of_the_directories_above_are_read_up_to_the_repository_s_root(tmp_path: Path) -> None:
    workdir = tmp_path / "repo/package/inner"
    workdir.mkdir(parents=True)
    for directory in (tmp_path, *list(workdir.parents)[:2], workdir):
        (directory / "AGENTS.md").write_text(f"of {directory.name}")
    assert read_agents_file(workdir, STATE) == "of inner"
    (tmp_path / "repo/.git").mkdir()
    text = read_agents_file(workdir, STATE)
    assert text is not None
    assert [line for line in text.split("\n") if line.startswith("of ")] == ["of repo", "of package", "of inner"]
    assert f"{tmp_path / 'repo/AGENTS.md'}:" in text
    (workdir / "AGENTS.md").unlink()
    (workdir / "AGENTS.md").symlink_to("../AGENTS.md")
    (tmp_path / "repo/AGENTS.md").unlink()
    (tmp_path / "repo/AGENTS.md").symlink_to("../AGENTS.md")
    text = read_agents_file(workdir, STATE)
    assert text is not None
    assert [line for line in text.split("\n") if line.startswith("of ")] == ["of package", "of package"]


def test_all_together_are_bounded_the_closest_first(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    workdir = tmp_path / "a/b/c"
    workdir.mkdir(parents=True)
    for directory in (tmp_path, tmp_path / "a", tmp_path / "a/b", workdir):
        (directory / "AGENTS.md").write_text(directory.name[:1] * MAX_AGENTS_BYTES)
    text = read_agents_file(workdir, STATE)
    assert text is not None
    assert len(text) < 2 * MAX_AGENTS_BYTES + 1000
    assert text.endswith("b" * MAX_AGENTS_BYTES + f"\n\n{workdir / 'AGENTS.md'}:\n\n" + "c" * MAX_AGENTS_BYTES)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to another user needs root")
def test_a_repository_of_another_owner_does_not_count(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "AGENTS.md").write_text("theirs")
    workdir = tmp_path / "work"
    workdir.mkdir()
    os.chown(tmp_path, 12345, 12345)
    assert read_agents_file(workdir, STATE) is None
