"""Walking: everything once, sorted by path, nothing that is closed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nous.tools.walk import MAX_OPEN_DIRECTORIES, Entry, Walk
from tests.unit.tools.toolroom import nest

names = st.text(st.sampled_from("ab.-/0é\u2028"), min_size=1, max_size=4).filter(
    lambda name: not {"", ".", ".."} & set(name.split("/"))
)


def make(root: Path, files: set[str]) -> None:
    for name in sorted(files):
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError:
            continue


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(names, max_size=12))
def test_everything_once_in_the_order_of_the_paths(tmp_path_factory: pytest.TempPathFactory, files: set[str]) -> None:
    root = tmp_path_factory.mktemp("tree")
    make(root, files)
    entries = list(Walk(str(root), str(root), ()))
    shown = [entry.path + "/" * entry.is_directory for entry in entries]
    assert shown == sorted(shown)
    there = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert {entry.path for entry in entries} == there
    assert len(entries) == len(there)
    assert all(entry.is_directory == (root / entry.path).is_dir() for entry in entries)


def test_git_and_closed_directories_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, {".git/HEAD", "sub/.git", "state/x", "sub/state/y", "x"})
    walk = Walk(str(tmp_path), str(tmp_path), [str(tmp_path / "state")])
    assert [entry.path for entry in walk] == ["sub", "sub/state", "sub/state/y", "x"]


def test_links_are_entries_and_not_followed(tmp_path: Path) -> None:
    make(tmp_path, {"dir/x"})
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "file").symlink_to("dir/x")
    os.mkfifo(tmp_path / "fifo")
    assert list(Walk(str(tmp_path), str(tmp_path), ())) == [
        Entry("dir", is_directory=True, is_regular=False),
        Entry("dir/x", is_directory=False, is_regular=True),
        Entry("fifo", is_directory=False, is_regular=False),
        Entry("file", is_directory=False, is_regular=False),
        Entry("loop", is_directory=False, is_regular=False),
    ]


def test_what_cannot_be_listed_is_counted(tmp_path: Path) -> None:
    walk = Walk(str(tmp_path / "missing"), str(tmp_path), ())
    assert list(walk) == []
    assert walk.unreadable == 1


def test_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"raw\xff")).touch()
    assert [entry.path for entry in Walk(str(tmp_path), str(tmp_path), ())] == ["raw\udcff"]


def test_a_tree_deeper_than_paths_and_descriptors_can_be(nested: Path) -> None:
    depth = 3000
    nest(nested, depth)
    walk = Walk(str(nested), str(nested), ())
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  names are enough
    entries = []
    for number, entry in enumerate(walk):
        entries.append(entry)
        if number == depth - 1:
            assert len(os.listdir("/proc/self/fd")) - open_before <= MAX_OPEN_DIRECTORIES + 5  # noqa: PTH208
    assert sum(entry.is_directory for entry in entries) == depth
    assert sum(entry.is_regular for entry in entries) == depth
    assert walk.unreadable == 0
    assert len(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208


def test_a_directory_that_became_a_link_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    make(tmp_path / "outside", {"secret"})
    make(tmp_path / "tree", {"a/x", "b/x"})
    seen = []
    for entry in (walk := Walk(str(tmp_path / "tree"), str(tmp_path / "tree"), ())):
        seen.append(entry.path)
        if entry.path == "a":
            (tmp_path / "tree/a").rename(tmp_path / "tree/moved")
            (tmp_path / "tree/a").symlink_to(tmp_path / "outside")
    assert seen == ["a", "b", "b/x"]
    assert walk.unreadable == 1


def test_a_closed_directory_is_closed_under_any_name(tmp_path: Path) -> None:
    make(tmp_path, {"state/x", "tree/a/x"})
    (tmp_path / "tree/a/x").unlink()
    (tmp_path / "tree/a").rmdir()
    fd = os.open(tmp_path / "state", os.O_RDONLY)
    assert list(Walk(str(tmp_path / "other"), str(tmp_path), [str(tmp_path / "state")], fd)) == []
    os.close(fd)
