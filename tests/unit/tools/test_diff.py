"""Diffs: what ``patch`` makes of the old text is the new one."""

from __future__ import annotations

import difflib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nous.tools.diff import unified_diff
from nous.tools.newlines import Replaced, replace_spans

lines = st.text(st.sampled_from("ab\u2028"), max_size=2)
texts = st.builds(lambda parts, end: "\n".join(parts) + end, st.lists(lines, max_size=40), st.sampled_from(["", "\n"]))


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, list[Replaced]]:
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    spans = zip(cuts[::2], cuts[1::2], strict=False)
    return text, [Replaced(start, end, draw(st.text("a\nc", max_size=4))) for start, end in spans]


def apply(diff: str, old: str) -> str:
    """Apply a unified diff strictly: every line must be where the diff says it is."""
    old_lines = old.split("\n")
    ends = old_lines.pop() == ""
    if not ends:
        old_lines = old.split("\n")
    new_lines: list[str] = []
    new_ends = ends or not old_lines
    at = 0
    body = diff.split("\n")[2:-1]
    for number, line in enumerate(body):
        if line.startswith("@@"):
            old_range, new_range = line.split()[1:3]
            start, _, count = old_range[1:].partition(",")
            first = int(start) - (count != "0")
            new_lines += old_lines[at:first]
            at = first
            new_start, _, new_count = new_range[1:].partition(",")
            assert len(new_lines) == int(new_start) - (new_count != "0")
        elif line.startswith("\\"):
            if body[number - 1].startswith((" ", "+")):
                new_ends = False
        else:
            if line[0] in " -":
                assert old_lines[at] == line[1:]
                at += 1
                if at == len(old_lines) and line[0] == "-":
                    new_ends = True
            if line[0] in " +":
                new_lines.append(line[1:])
    new_lines += old_lines[at:]
    return "\n".join(new_lines) + ("\n" if new_lines and new_ends else "")


@given(edits())
def test_the_diff_leads_from_the_old_text_to_the_new(edit: tuple[str, list[Replaced]]) -> None:
    old, replacements = edit
    new = replace_spans(old, replacements)
    diff = unified_diff("file", old, replacements)
    assert diff.startswith("--- a/file\n+++ b/file\n")
    if old and new:
        assert apply(diff, old) == new
    if old == new and all(old[r.start : r.end] == r.text for r in replacements):
        assert "@@" not in diff


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edit=edits())
@pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")
def test_patch_takes_it(tmp_path: Path, edit: tuple[str, list[Replaced]]) -> None:
    old, replacements = edit
    new = replace_spans(old, replacements)
    diff = unified_diff("file", old, replacements)
    if "@@" not in diff or not new:
        return
    (tmp_path / "file").write_bytes(old.encode())
    subprocess.run(
        ["patch", "--strip=1", "--fuzz=0", "--quiet", "--no-backup-if-mismatch"],
        input=diff.encode(),
        cwd=tmp_path,
        check=True,
        timeout=20,
    )
    assert (tmp_path / "file").read_bytes() == new.encode()


def test_one_changed_line_looks_as_everybody_writes_it() -> None:
    old_lines = [f"line {number}\n" for number in range(1, 11)]
    new_lines = ["changed\n" if line == "line 5\n" else line for line in old_lines]
    old = "".join(old_lines)
    at = old.index("line 5")
    ours = unified_diff("f", old, [Replaced(at, at + 6, "changed")])
    assert ours == "".join(difflib.unified_diff(old_lines, new_lines, "a/f", "b/f"))


def test_near_changes_share_a_hunk_and_far_ones_do_not() -> None:
    old = "".join(f"{number}\n" for number in range(100, 200))

    def diff_of(*changed: int) -> str:
        return unified_diff("f", old, [Replaced(4 * n, 4 * n + 3, "new") for n in changed])

    assert diff_of(10, 17).count("@@ -") == 1
    assert diff_of(10, 18).count("@@ -") == 2


def test_a_missing_newline_at_the_end_is_said() -> None:
    assert unified_diff("f", "a\nb", [Replaced(2, 3, "c")]) == (
        "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n\\ No newline at end of file\n"
    )
    assert unified_diff("f", "a\n", [Replaced(1, 2, "")]).endswith("-a\n+a\n\\ No newline at end of file\n")


def test_many_replacements_in_a_large_text_take_no_time_to_speak_of() -> None:
    old = "same line\n" * 200_000
    replacements = [Replaced(10 * n, 10 * n + 4, "other") for n in range(0, 200_000, 2)]
    assert unified_diff("f", old, replacements).count("\n+other line") == 100_000
