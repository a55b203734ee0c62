"""The state diagram of docs/engine.md says what the table says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nous.engine.transitions import AFTER_HOOK, TRANSITIONS, AfterHook, Phase
from scripts.draw_states import BEGIN, END, PAGE, drawing, main, name_of, redrawn, steady_inputs


def test_the_committed_page_is_fresh() -> None:
    assert main(["--check"]) == 0


def test_every_edge_is_drawn_or_named_below() -> None:
    drawn = {
        (start, to, name.partition(" (")[0])
        for start, to, names in re.findall(r"^    (\w+) --> (\w+): (.+)$", drawing(), re.MULTILINE)
        for name in names.split(", ")
    }
    steady = [name_of(kind) for kind in steady_inputs()]
    assert steady == ["steered", "followed_up", "steering_mode_set", "follow_up_mode_set", "tools_set"]
    assert all(f"`{name}`" in drawing() for name in steady)
    assert drawn == {
        (row.state.value, to.value, name_of(row.input))
        for row in TRANSITIONS.values()
        for to in row.to
        if name_of(row.input) not in steady
    }


def test_every_hook_is_drawn_where_its_answer_leads() -> None:
    drawn = {
        (AfterHook(then), Phase(to))
        for to, thens in re.findall(r"^    in_hook --> (\w+): hook_answered \(([^)]+)\)", drawing(), re.MULTILINE)
        for then in thens.split(" or ")
    }
    assert drawn == {(then, to) for then, after in AFTER_HOOK.items() for to in after}


def test_a_stale_page_is_found_and_drawn_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "engine.md"
    fresh = PAGE.read_text(encoding="utf-8")
    page.write_text(fresh.replace("asking --> ended", "asking --> ready"), encoding="utf-8")
    assert main(["--check"], page) == 1
    assert "engine.md is not what the engine's table says" in capsys.readouterr().out
    assert main([], page) == 0
    assert page.read_text(encoding="utf-8") == fresh


def test_what_stands_around_the_drawing_is_kept() -> None:
    assert redrawn(f"a\n{BEGIN}\nold\n{END}\nb\n") == f"a\n{BEGIN}\n{drawing()}\n{END}\nb\n"


@pytest.mark.parametrize("page", ["", BEGIN, END + BEGIN, f"{BEGIN}{END}{END}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_its_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="marks"):
        redrawn(page)
