from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.ports.model import ContextMessage
from nous.store.session_format import LeafMove
from nous.store.session_tree import PathView, SessionTree, TreeError
from tests.unit.store.helpers import LATER, NOW, message


def tree_of(*edges: tuple[str, str]) -> SessionTree:
    tree = SessionTree()
    for message_id, parent_id in edges:
        tree.add(message(message_id, parent_id))
    return tree


def ids(tree: SessionTree, leaf_id: str) -> list[str]:
    return [known.message.id for known in tree.path(leaf_id)]


def move(move_id: str, leaf_id: str, parent_id: str = "") -> LeafMove:
    return LeafMove(id=move_id, parent_id=parent_id, leaf_id=leaf_id, created_at=LATER)


def test_an_empty_tree() -> None:
    tree = SessionTree()
    assert (tree.leaf_id, tree.updated_at, ids(tree, "")) == ("", "", [])


def test_messages_become_the_leaf_and_moves_choose_one() -> None:
    tree = tree_of(("a", ""), ("b", "a"))
    assert (tree.leaf_id, tree.updated_at) == ("b", NOW)
    tree.add(move("m1", "a", "b"))
    assert (tree.leaf_id, tree.updated_at) == ("a", LATER)
    tree.add(message("c", "a"))
    assert tree.leaf_id == "c"
    assert ids(tree, "c") == ["a", "c"]
    assert ids(tree, "b") == ["a", "b"]
    assert list(tree.messages) == ["a", "b", "c"]


def test_several_roots_are_fine() -> None:
    tree = tree_of(("a", ""), ("b", ""))
    assert (ids(tree, "a"), ids(tree, "b")) == (["a"], ["b"])


@pytest.mark.parametrize(
    "entry",
    [
        message("a"),
        message("b", "a"),
        message("", "a"),
        message("m1", "a"),
        message("x", "unknown"),
        message("x", "m1"),
        message("x", "x"),
        move("a", "a"),
        move("m1", "a"),
        move("m2", "unknown"),
        move("m2", "m1"),
        move("m2", ""),
        move("m2", "a", "unknown"),
    ],
)
def test_what_does_not_fit_changes_nothing(entry: Any) -> None:
    tree = tree_of(("a", ""), ("b", "a"))
    tree.add(move("m1", "a"))
    with pytest.raises(TreeError):
        tree.add(entry)
    assert (tree.leaf_id, list(tree.messages), tree.updated_at) == ("a", ["a", "b"], LATER)


def test_an_unknown_leaf_has_no_path() -> None:
    tree = tree_of(("a", ""))
    tree.add(move("m1", "a"))
    for leaf_id in ("x", "m1"):
        with pytest.raises(TreeError):
            tree.path(leaf_id)


def test_a_path_that_was_handed_out_never_changes() -> None:
    tree = tree_of(("a", ""), ("b", "a"))
    before = tree.path("b")
    iterator = iter(before)
    tree.add(message("c", "b"))
    after = tree.path("c")
    assert [known.message.id for known in before] == ["a", "b"]
    assert [known.message.id for known in iterator] == ["a", "b"]
    assert [known.message.id for known in after] == ["a", "b", "c"]
    assert before[0] is after[0], "the encodings kept in it are not lost"


class CountingDict(dict[str, ContextMessage]):
    """Counts what is looked up."""

    lookups = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.lookups += 1
        return super().get(key, default)


def test_going_on_at_a_leaf_does_not_walk_the_path() -> None:
    tree = tree_of(*((f"m{n}", f"m{n - 1}" if n else "") for n in range(1000)))
    counting = CountingDict(tree.messages)
    tree.messages = counting
    assert len(tree.path("m999")) == 1000
    assert counting.lookups == 1000
    for n in range(1000, 1100):
        tree.add(message(f"m{n}", f"m{n - 1}"))
        assert len(tree.path(f"m{n}")) == n + 1
    assert counting.lookups == 1000


def test_two_branches_are_both_kept() -> None:
    tree = tree_of(("root", ""))
    counting = CountingDict(tree.messages)
    tree.messages = counting
    for side in "ab":
        tree.add(message(f"{side}0", "root"))
        tree.path(f"{side}0")
    walked = counting.lookups
    for n in range(1, 50):
        for side in "ab":
            tree.add(message(f"{side}{n}", f"{side}{n - 1}"))
            assert ids(tree, f"{side}{n}") == ["root", *(f"{side}{k}" for k in range(n + 1))]
    assert counting.lookups == walked


def test_kept_paths_are_few() -> None:
    tree = tree_of(("root", ""), *((f"b{n}", "root") for n in range(20)))
    for n in range(20):
        assert ids(tree, f"b{n}") == ["root", f"b{n}"]
    assert len(tree._paths) < 10


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=30))
def test_paths_are_what_parents_say(steps: list[tuple[int, bool]]) -> None:
    """Whatever is appended where, and whichever paths are asked for between."""
    tree = SessionTree()
    parents: dict[str, str] = {}
    for number, (choice, asks) in enumerate(steps):
        known = ["", *parents]
        parent_id = known[choice % len(known)]
        parents[f"m{number}"] = parent_id
        tree.add(message(f"m{number}", parent_id))
        if asks:
            tree.path(known[(choice * 7) % len(known)])
        for leaf_id in parents:
            expected = [leaf_id]
            while parents[expected[0]]:
                expected.insert(0, parents[expected[0]])
            if asks or leaf_id == f"m{number}":
                assert ids(tree, leaf_id) == expected


@given(st.integers(0, 6), st.integers(0, 6), st.slices(8))
def test_a_view_is_a_sequence(length: int, more: int, part: slice) -> None:
    items = [ContextMessage(message(str(n))) for n in range(length + more)]
    behind = items[:length]
    view = PathView(behind)
    behind.extend(items[length:])
    plain = items[:length]
    assert list(view) == plain
    assert len(view) == length
    assert view[part] == plain[part]
    assert list(reversed(view)) == plain[::-1]
    for index in range(-length, length):
        assert view[index] is plain[index]
    for index in (length, -length - 1):
        with pytest.raises(IndexError):
            view[index]
