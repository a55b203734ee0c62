"""The structure check finds what it is for, and the code has no more of it than its list says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.check_structure import findings, main

CLEAN = '"""A module."""\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    package = tmp_path / "nous"
    package.mkdir()
    for name in ("__init__", "a", "b", "c"):
        (package / f"{name}.py").write_text(CLEAN, encoding="utf-8")
    return tmp_path


def write(tree: Path, name: str, body: str) -> None:
    (tree / "nous" / f"{name}.py").write_text(CLEAN + body, encoding="utf-8")


def test_the_code_has_no_more_than_its_list() -> None:
    assert main([]) == 0


@pytest.mark.parametrize(
    "back",
    [
        "from nous.a import x\n",
        "import nous.a\n",
        "from nous import a\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nous.a import x\n",
        "def f():\n    '''F.'''\n    from nous.a import x\n",
    ],
)
def test_a_cycle_however_it_is_imported(tree: Path, back: str) -> None:
    write(tree, "a", "from nous.b import x\n")
    write(tree, "b", "from nous.c import x\n")
    assert findings(tree)["import cycles"] == []
    write(tree, "c", back)
    assert findings(tree)["import cycles"] == ["nous.a nous.b nous.c"]


def test_a_class_name_in_two_modules(tree: Path) -> None:
    for name in ("a", "b"):
        write(tree, name, 'class Twice:\n    """T."""\nclass _Own:\n    pass\n')
    assert findings(tree)["class names defined twice"] == ["Twice: nous.a nous.b"]


def test_a_public_name_without_a_docstring(tree: Path) -> None:
    write(
        tree,
        "a",
        "class Shown:\n    def told(self): ...\n    async def waited(self): ...\n    def _own(self): ...\n"
        "    @property\n    def named(self):\n        '''N.'''\n"
        "def called(): ...\n",
    )
    (tree / "nous" / "b.py").write_text("", encoding="utf-8")
    assert findings(tree)["public names without a docstring"] == [
        "nous.a.Shown",
        "nous.a.Shown.told",
        "nous.a.Shown.waited",
        "nous.a.called",
        "nous.b",
    ]


def test_the_list_may_only_shrink(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    debt = tree / "debt.json"
    write(tree, "a", "def called(): ...\n")
    assert main(["--write"], tree, debt) == 0
    assert main([], tree, debt) == 0
    write(tree, "b", "def another(): ...\n")
    assert main([], tree, debt) == 1
    assert "public names without a docstring: nous.b.another" in capsys.readouterr().out
    write(tree, "b", "")
    write(tree, "a", "")
    assert main([], tree, debt) == 1
    assert "1 of the list are mended" in capsys.readouterr().out
    assert json.loads(debt.read_text(encoding="utf-8"))["public names without a docstring"] == ["nous.a.called"]
