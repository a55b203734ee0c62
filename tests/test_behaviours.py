"""The manifest of behaviours and the tests agree, both ways.

``tests/behaviours.yaml`` names what protocol v1 promises and the tests that prove it.  A promise without a test, a test
that proves a promise nobody listed, a listed test that is gone: each fails here.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

TESTS: Final = Path(__file__).parent
MANIFEST: Final = TESTS / "behaviours.yaml"
SECTIONS: Final = 8

_ID: Final = re.compile(r"P([1-9])\.([1-9][0-9]*)")
_PENDING: Final = re.compile(r"issue [1-9][0-9]*")


@cache
def manifest() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    return loaded


@cache
def listed() -> dict[str, frozenset[str]]:
    """Return the tests of each promise, as the manifest has them."""
    return {promise: frozenset(entry.get("tests", ())) for promise, entry in manifest().items()}


@cache
def marked() -> dict[str, frozenset[str]]:
    """Return the tests of each promise, as their marks have them."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        module = ast.parse(path.read_text(encoding="utf-8"), path.name)
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for promise in promises_of(node):
                    found[promise].add(f"{path.relative_to(TESTS.parent).as_posix()}::{node.name}")
    return {promise: frozenset(tests) for promise, tests in found.items()}


def promises_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yield the arguments of a test's ``@pytest.mark.behaviour(...)``."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.behaviour":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def test_the_manifest_is_whole_and_in_order() -> None:
    keys = re.findall(r"^(P[^:]*):", MANIFEST.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(keys) == len(set(keys)), "a promise stands there twice"
    places = [tuple(map(int, match.groups())) for match in map(_ID.fullmatch, keys) if match is not None]
    assert len(places) == len(keys)
    expected = []
    for section in range(1, SECTIONS + 1):
        count = sum(place[0] == section for place in places)
        assert count, f"no promise of section {section}"
        expected += [(section, number) for number in range(1, count + 1)]
    assert places == expected


@pytest.mark.parametrize("promise", manifest())
def test_a_promise_has_tests_or_is_pending(promise: str) -> None:
    entry = manifest()[promise]
    assert set(entry) <= {"promise", "tests", "pending"}
    assert isinstance(entry["promise"], str)
    if "pending" in entry:
        assert _PENDING.fullmatch(entry["pending"])
        assert "tests" not in entry, "a promise that is tested is no longer pending"
        assert promise not in marked(), "a promise that is tested is no longer pending"
    else:
        assert entry["tests"], "a promise that nothing proves"
        assert len(entry["tests"]) == len(set(entry["tests"]))


@pytest.mark.parametrize("promise", sorted({*manifest(), *marked()}))
def test_marks_and_manifest_name_the_same_tests(promise: str) -> None:
    in_manifest, in_marks = listed().get(promise, frozenset()), marked().get(promise, frozenset())
    assert promise in manifest(), f"nobody promised what these prove: {sorted(in_marks)}"
    assert sorted(in_manifest - in_marks) == [], "listed, but no such test, or not marked"
    assert sorted(in_marks - in_manifest) == [], "marked, but not listed"
