"""What the benchmark says of its figures: kept or not, by budgets that name figures which are really measured."""

from __future__ import annotations

import ast
import compileall
import inspect
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from scripts.bench import __main__ as bench
from scripts.bench.budgets import BUDGETS, LEAST_BUDGETS, LEAST_TARGETS, TARGETS, check_budgets, target_of
from scripts.bench.measures import MEASURES

KEPT = {**BUDGETS, **LEAST_BUDGETS}
"""Medians that are just good enough."""

BOUNDS = [(figure, bound, 1) for figure, bound in BUDGETS.items()] + [
    (figure, bound, -1) for figure, bound in LEAST_BUDGETS.items()
]
"""Each budget, and in which direction it is not kept any more."""


def broken(medians: dict[str, float]) -> list[str]:
    return [line for kept, line in check_budgets(medians) if not kept]


# -- verdicts


def test_a_figure_at_its_bound_is_kept() -> None:
    assert broken(KEPT) == []
    assert len(check_budgets(KEPT)) == len(BUDGETS) + len(LEAST_BUDGETS)


@pytest.mark.parametrize(("figure", "bound", "worse"), BOUNDS)
def test_a_figure_beyond_its_bound_is_the_only_one_that_is_not_kept(figure: str, bound: float, worse: int) -> None:
    (line,) = broken({**KEPT, figure: bound + worse * bound / 1000})
    assert line.startswith(f"{figure}: ")
    assert line.endswith(f"{'at most' if worse > 0 else 'at least'} {bound:g}")
    assert broken({**KEPT, figure: bound - worse * bound / 1000}) == []


@pytest.mark.parametrize(("figure", "bound", "worse"), BOUNDS)
def test_a_figure_that_was_not_measured_is_not_kept(figure: str, bound: float, worse: int) -> None:
    medians = {name: value for name, value in KEPT.items() if name != figure}
    assert broken(medians) == [f"{figure}: not measured, {'at most' if worse > 0 else 'at least'} {bound:g}"]


def test_figures_without_a_budget_are_not_judged() -> None:
    assert broken({**KEPT, "nous something else ms": 1e9}) == []


def test_a_target_as_it_stands_in_the_table() -> None:
    assert target_of("nous tool round ms") == f"<= {TARGETS['nous tool round ms']:g}"
    assert target_of("deltas per s ratio") == f">= {LEAST_TARGETS['deltas per s ratio']:g}"
    assert target_of("nous idle rss MB") == "<= 48"
    assert target_of("nous tool rounds ms") == ""


# -- the figures there are


def figures_of(measure: Callable[..., Any]) -> set[str]:
    """Return the names of the figures a measure gives, as its source spells them."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(measure)))
    known = dict[str, list[str]]()
    for node in ast.walk(tree):
        if isinstance(node, ast.For):
            for name, value in bindings(node):
                known.setdefault(name, []).append(value)
    return {text for node in ast.walk(tree) for key in keys_of(node) for text in texts(key, known)}


def bindings(loop: ast.For) -> Iterator[tuple[str, str]]:
    """Yield what a loop over a written tuple binds to names, as far as it is written there too."""
    names = loop.target.elts if isinstance(loop.target, ast.Tuple) else [loop.target]
    for row in loop.iter.elts if isinstance(loop.iter, ast.Tuple) else []:
        cells = row.elts if isinstance(row, ast.Tuple) else [row]
        for name, cell in zip(names, cells, strict=True):
            if isinstance(name, ast.Name) and isinstance(cell, ast.Constant):
                yield name.id, str(cell.value)


def keys_of(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the keys that are set: ``out[key] = ...``, and those of a returned dictionary."""
    if isinstance(node, ast.Assign):
        yield from (target.slice for target in node.targets if isinstance(target, ast.Subscript))
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Dict):
        yield from (key for key in node.value.keys if key is not None)


def texts(key: ast.expr, known: dict[str, list[str]]) -> Iterator[str]:
    """Yield what a key can be; nothing if it depends on what is not written in the function."""
    pieces: list[list[str]] = []
    for part in key.values if isinstance(key, ast.JoinedStr) else [key]:
        if isinstance(part, ast.Constant):
            pieces.append([str(part.value)])
        elif isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name):
            pieces.append(known.get(part.value.id, []))
        else:
            return
    yield from map("".join, itertools.product(*pieces))


MEASURED = set().union(*(bench.with_ratios(dict.fromkeys(figures_of(one), 1.0)) for one in MEASURES.values()))


@pytest.mark.parametrize("bounds", [TARGETS, LEAST_TARGETS, BUDGETS, LEAST_BUDGETS])
def test_every_bound_is_of_a_figure_that_some_measure_gives(bounds: dict[str, float]) -> None:
    assert bounds.keys() - MEASURED == set()


def test_names_that_no_measure_gives_are_told_from_those_that_one_does() -> None:
    given = {"nous turn 1000 cpu ms", "floor paced p99 ms", "nous ping p50 ms", "nous serve import ms"}
    given |= {"paced p99 ratio", "deltas per s ratio", "nous no-op hook adds ms", "nous tool round ms"}
    assert given <= MEASURED
    misspelt = {"nous turn 100 cpu ms", "nous pings p50 ms", "nous ping p90 ms", "nouns paced p50 ms", "tool round ms"}
    misspelt |= {"turn 1000 over 50 ratio", "spawn to reply ms ratio"}
    assert not misspelt & MEASURED


# -- what the program makes of it


def run_bench(monkeypatch: pytest.MonkeyPatch, rounds: list[dict[str, float]], *arguments: str) -> int:
    """Run the program with a measure that gives these figures round by round, and nothing else of its own."""
    given = iter(rounds)
    monkeypatch.setattr(bench, "MEASURES", {"given": lambda provider: next(given)})
    monkeypatch.setattr(bench, "provider", nullcontext)
    monkeypatch.setattr(compileall, "compile_dir", lambda *_, **__: True)
    monkeypatch.setattr(sys, "argv", ["bench", "--rounds", str(len(rounds)), *arguments])
    return bench.main()


def test_the_program_fails_if_a_budget_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = {**KEPT, "nous tool round ms": BUDGETS["nous tool round ms"] * 2}
    assert run_bench(monkeypatch, [slow], "--budgets") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("FAIL")] == ["FAIL nous tool round ms: 16.000, at most 8"]
    assert sum(line.startswith("PASS") for line in lines) == len(KEPT) - 1


def test_the_program_succeeds_if_every_budget_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_bench(monkeypatch, [KEPT], "--budgets") == 0
    assert "FAIL" not in capsys.readouterr().out


def test_one_slow_round_of_three_is_no_failure_and_two_are(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {figure: value * (2 if figure in BUDGETS else 0.5) for figure, value in KEPT.items()}
    assert run_bench(monkeypatch, [KEPT, slow, KEPT], "--budgets") == 0
    assert run_bench(monkeypatch, [slow, KEPT, slow], "--budgets") == 1


def test_without_being_asked_the_program_judges_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_bench(monkeypatch, [{"nous tool round ms": 1e9}], "--json", str(tmp_path / "out.json")) == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out
    assert "<= 2" in out
    assert '"median": 1000000000.0' in (tmp_path / "out.json").read_text(encoding="utf-8")
