from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.ports.model import ContextMessage
from nous.protocol.entries import SUMMARY_HEAD, ModelChange
from nous.store.session_format import Checkpoint, LeafMove
from nous.store.session_path import Path, PathView
from nous.store.session_tree import SessionTree, TreeError
from tests.unit.store.helpers import LATER, NOW, compaction, message


def tree_of(*edges: tuple[str, str]) -> SessionTree:
    tree = SessionTree()
    for message_id, parent_id in edges:
        tree.add(message(message_id, parent_id))
    return tree


def ids(tree: SessionTree, leaf_id: str, compaction_id: str | None = None) -> list[str]:
    return [known.message.id for known in tree.path(leaf_id, compaction_id)]


def full_ids(tree: SessionTree, leaf_id: str) -> list[str]:
    return [known.message.id for known in tree.full_path(leaf_id)]


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
        message("k1", "a"),
        compaction("a", "b"),
        compaction("m1", "b"),
        compaction("k1", "b"),
        compaction("k2", ""),
        compaction("k2", "unknown"),
        compaction("k2", "m1"),
        compaction("k2", "k1"),
        compaction("k2", "b", "unknown"),
        compaction("k2", "a", "b"),
        compaction("k2", "b", "other"),
        compaction("k2", "b", "k1"),
        Checkpoint(id="m1", created_at=NOW),
        Checkpoint(id="p", parent_id="unknown", created_at=NOW),
        ModelChange(id="p", parent_id="k1", provider="x", model="y", created_at=NOW),
    ],
)
def test_what_does_not_fit_changes_nothing(entry: Any) -> None:
    tree = tree_of(("other", ""), ("a", ""), ("b", "a"))
    tree.add(compaction("k1", "b"))
    tree.add(move("m1", "a"))
    with pytest.raises(TreeError):
        tree.add(entry)
    assert list(tree.compactions) == ["k1"]
    assert ids(tree, "b") == ["k1"]
    assert (tree.model_at("a"), tree.checkpoint) == (None, None)
    assert (tree.leaf_id, list(tree.messages), tree.updated_at) == ("a", ["other", "a", "b"], LATER)


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
    behind = Path(items[:length], "c1")
    view = PathView(behind)
    tokens = view.estimated_tokens
    behind.messages.extend(items[length:])
    plain = items[:length]
    assert list(view) == plain
    assert (view.estimated_tokens, PathView(behind).estimated_tokens) == (5 * length, 5 * (length + more))
    assert (tokens, view.compaction_id) == (5 * length, "c1")
    assert len(view) == length
    assert view[part] == plain[part]
    assert list(reversed(view)) == plain[::-1]
    for index in range(-length, length):
        assert view[index] is plain[index]
    for index in (length, -length - 1):
        with pytest.raises(IndexError):
            view[index]


class TestCompaction:
    """abcde in a row, compacted at d to keep c on; below a hangs another branch."""

    @pytest.fixture
    def tree(self) -> SessionTree:
        tree = tree_of(("a", ""), ("b", "a"), ("x", "a"), ("c", "b"), ("d", "c"))
        tree.add(compaction("k1", "d", "c"))
        tree.add(message("e", "d"))
        return tree

    def test_it_holds_where_it_was_made_and_below(self, tree: SessionTree) -> None:
        assert ids(tree, "d") == ["k1", "c", "d"]
        assert ids(tree, "e") == ["k1", "c", "d", "e"]
        assert tree.path("e").compaction_id == "k1"
        assert tree.path("e")[0].message.text == f"{SUMMARY_HEAD}summary k1"

    def test_above_and_beside_nothing_changes(self, tree: SessionTree) -> None:
        assert [ids(tree, leaf) for leaf in "acx"] == [["a"], ["a", "b", "c"], ["a", "x"]]
        assert tree.path("c").compaction_id == ""

    def test_it_holds_below_also_for_what_was_there_before(self, tree: SessionTree) -> None:
        before = tree.path("e")
        tree.add(compaction("k2", "d", "d"))
        assert ids(tree, "e") == ["k2", "d", "e"]
        assert [known.message.id for known in before] == ["k1", "c", "d", "e"]

    def test_the_messages_are_all_still_there(self, tree: SessionTree) -> None:
        assert full_ids(tree, "e") == ["a", "b", "c", "d", "e"]
        assert list(tree.messages) == ["a", "b", "x", "c", "d", "e"]
        with pytest.raises(TreeError):
            tree.full_path("k1")

    def test_it_does_not_move_the_leaf(self, tree: SessionTree) -> None:
        tree.add(message("y", "x"))
        tree.add(compaction("k2", "e", "e"))
        assert (tree.leaf_id, tree.updated_at) == ("y", NOW)

    def test_it_is_no_leaf(self, tree: SessionTree) -> None:
        for leaf_id in ("k1", "unknown"):
            with pytest.raises(TreeError):
                tree.path(leaf_id)

    def test_the_nearest_is_in_force_and_of_one_place_the_last(self, tree: SessionTree) -> None:
        tree.add(compaction("k2", "e", "d"))
        tree.add(message("f", "e"))
        assert (ids(tree, "d"), ids(tree, "f")) == (["k1", "c", "d"], ["k2", "d", "e", "f"])
        tree.add(compaction("k3", "e", "e"))
        assert ids(tree, "f") == ["k3", "e", "f"]

    def test_it_may_keep_nothing(self, tree: SessionTree) -> None:
        tree.add(compaction("k2", "e"))
        assert ids(tree, "e") == ["k2"]
        tree.add(message("f", "e"))
        assert (ids(tree, "f"), full_ids(tree, "f")[-2:]) == (["k2", "f"], ["e", "f"])

    def test_another_one_can_be_asked_for(self, tree: SessionTree) -> None:
        """A run, and whoever replays it, sees what was in force when it began."""
        tree.add(compaction("k2", "e", "e"))
        tree.add(message("f", "e"))
        assert ids(tree, "f", "") == ["a", "b", "c", "d", "e", "f"]
        assert ids(tree, "f", "k1") == ["k1", "c", "d", "e", "f"]
        assert ids(tree, "f", "k2") == ids(tree, "f") == ["k2", "e", "f"]
        tree.add(message("g", "f"))
        assert ids(tree, "g", "k1") == ["k1", "c", "d", "e", "f", "g"]
        assert (tree.path("g", "").compaction_id, tree.path("g", "k1").compaction_id) == ("", "k1")

    @pytest.mark.parametrize(("leaf_id", "compaction_id"), [("x", "k1"), ("c", "k1"), ("e", "k9"), ("e", "a")])
    def test_one_that_does_not_hold_there_is_refused(self, tree: SessionTree, leaf_id: str, compaction_id: str) -> None:
        with pytest.raises(TreeError):
            tree.path(leaf_id, compaction_id)

    def test_going_on_does_not_walk_and_keeps_encodings(self, tree: SessionTree) -> None:
        counting = CountingDict(tree.messages)
        tree.messages = counting
        first = tree.path("e")
        walked = counting.lookups
        assert walked == 3, "what was compacted is not looked at"
        for n in range(100):
            tree.add(message(f"f{n}", f"f{n - 1}" if n else "e"))
            path = tree.path(f"f{n}")
            assert (len(path), path.compaction_id) == (5 + n, "k1")
        assert counting.lookups == walked
        assert path[0] is first[0]
        assert tree.path("d")[0] is first[0]
        assert path[1] is tree.full_path("e")[2]


class TestPruned:
    """b and what came before it was removed; k1 covers it."""

    @pytest.fixture
    def tree(self) -> SessionTree:
        tree = SessionTree({"b": "k1"})
        for edge in (("c", "b"), ("d", "c")):
            tree.add(message(*edge))
        tree.add(compaction("k1", "d", "c"))
        tree.add(message("e", "d"))
        return tree

    def test_every_leaf_has_a_context(self, tree: SessionTree) -> None:
        contexts = {leaf: ids(tree, leaf) for leaf in "bcde"}
        assert contexts == {"b": ["k1"], "c": ["k1", "c"], "d": ["k1", "c", "d"], "e": ["k1", "c", "d", "e"]}
        assert {tree.path(leaf).compaction_id for leaf in "bcde"} == {"k1"}

    def test_what_is_there_is_shown(self, tree: SessionTree) -> None:
        assert [full_ids(tree, leaf) for leaf in "bce"] == [[], ["c"], ["c", "d", "e"]]

    def test_what_is_gone_can_be_followed_and_moved_to(self, tree: SessionTree) -> None:
        tree.add(message("y", "b"))
        assert (ids(tree, "y"), full_ids(tree, "y")) == (["k1", "y"], ["y"])
        tree.add(move("m1", "b"))
        assert (tree.leaf_id, ids(tree, "b")) == ("b", ["k1"])

    def test_the_context_from_before_is_gone(self, tree: SessionTree) -> None:
        for leaf, asked in (("e", ""), ("b", ""), ("c", "k9")):
            with pytest.raises(TreeError):
                tree.path(leaf, asked)
        assert ids(tree, "c", "k1") == ["k1", "c"]

    def test_its_id_is_still_taken(self, tree: SessionTree) -> None:
        with pytest.raises(TreeError, match="taken"):
            tree.add(message("b"))

    def test_it_can_be_compacted_again(self, tree: SessionTree) -> None:
        with pytest.raises(TreeError):
            tree.add(compaction("k2", "c", "b"))
        tree.add(compaction("k2", "e"))
        assert ids(tree, "e") == ["k2"]
        tree.add(compaction("k3", "b"))
        assert ids(tree, "c") == ["k3", "c"]

    def test_a_summary_that_is_not_there_is_no_context(self) -> None:
        tree = SessionTree({"b": "k1"})
        tree.add(message("c", "b"))
        with pytest.raises(TreeError, match="pruned"):
            tree.path("c")


def test_models_and_checkpoints_are_no_part_of_a_path() -> None:
    tree = tree_of(("a", ""))
    tree.add(ModelChange(id="p1", parent_id="a", provider="x", model="one", created_at=LATER))
    assert (tree.updated_at, tree.leaf_id) == (LATER, "a")
    tree.add(message("b", "a"))
    change = ModelChange(id="p2", parent_id="b", provider="x", model="two", created_at=NOW)
    tree.add(change)
    checkpoint = Checkpoint(id="p3", parent_id="a", created_at=LATER)
    tree.add(checkpoint)
    assert (tree.model_at("b"), tree.checkpoint) == (change, checkpoint)
    assert (tree.leaf_id, tree.updated_at) == ("a", NOW), "it says where the leaf is, and is not said by anybody"
    assert ids(tree, "b") == ["a", "b"]


@given(st.lists(st.tuples(st.sampled_from("mmmck"), st.integers(0, 40), st.integers(0, 40)), max_size=25), st.data())
def test_contexts_are_what_the_rule_says(steps: list[tuple[str, int, int]], data: st.DataObject) -> None:
    """The nearest compaction at or above the leaf, of one place the last; written down in the plainest way."""
    tree = SessionTree()
    parents: dict[str, str] = {}
    made: list[tuple[str, str, str]] = []

    def chain(leaf_id: str) -> list[str]:
        return [*chain(parents[leaf_id]), leaf_id] if leaf_id else []

    def expected(leaf_id: str, asked: str | None) -> list[str]:
        whole = chain(leaf_id)
        for at in reversed(whole):
            for compaction_id, parent_id, first in reversed(made):
                if parent_id == at and asked in (None, compaction_id):
                    kept = whole[whole.index(first) :] if first else whole[whole.index(at) + 1 :]
                    return [compaction_id, *kept]
        return whole

    for number, (kind, choice, other) in enumerate(steps):
        known = list(parents)
        if kind == "m" or not known:
            parents[f"m{number}"] = ["", *known][choice % (len(known) + 1)]
            tree.add(message(f"m{number}", parents[f"m{number}"]))
        elif kind == "c":
            parent_id = known[choice % len(known)]
            first = ["", *chain(parent_id)][other % (len(chain(parent_id)) + 1)]
            made.append((f"k{number}", parent_id, first))
            tree.add(compaction(f"k{number}", parent_id, first))
        leaf_id = data.draw(st.sampled_from([*parents]))
        assert ids(tree, leaf_id) == expected(leaf_id, None)
        assert ids(tree, leaf_id, "") == full_ids(tree, leaf_id) == chain(leaf_id)
        for compaction_id, parent_id, _ in made:
            if parent_id in chain(leaf_id):
                assert ids(tree, leaf_id, compaction_id) == expected(leaf_id, compaction_id)


def model(entry_id: str, parent_id: str) -> ModelChange:
    return ModelChange(id=entry_id, parent_id=parent_id, provider="x", model=entry_id, created_at=NOW)


class TestModels:
    def test_without_a_change_there_is_none(self) -> None:
        tree = tree_of(("a", ""))
        assert [tree.model_at(at) for at in ("", "a", "nobody")] == [None, None, None]

    def test_a_change_holds_for_what_is_added_below_it(self) -> None:
        tree = tree_of(("a", ""), ("b", "a"))
        tree.add(model("p1", "a"))
        for added in (message("c", "a"), message("d", "c"), message("e", "b")):
            tree.add(added)
        found = {at: tree.model_at(at) for at in ("", "a", "b", "c", "d", "e")}
        changed = model("p1", "a")
        assert found == {"": None, "a": changed, "b": None, "c": changed, "d": changed, "e": None}

    def test_the_last_change_on_a_leaf_counts(self) -> None:
        tree = tree_of(("a", ""))
        for name in ("p1", "p2"):
            tree.add(model(name, "a"))
        assert tree.model_at("a") == model("p2", "a")

    def test_one_made_before_the_first_message_holds_for_all(self) -> None:
        tree = SessionTree()
        tree.add(model("p1", ""))
        tree.add(message("a", ""))
        assert tree.model_at("a") == tree.model_at("") == model("p1", "")

    def test_along_a_path_each_counts_once_and_what_came_too_late_does_not(self) -> None:
        tree = tree_of(("a", ""))
        tree.add(model("p1", "a"))
        tree.add(message("b", "a"))
        tree.add(message("c", "b"))
        tree.add(model("p2", "a"))
        tree.add(model("p3", "c"))
        assert [change.id for change in tree.models_along(["a", "b", "c"])] == ["p1", "p3"]
        assert [change.id for change in tree.models_along(["a"])] == ["p2"]
