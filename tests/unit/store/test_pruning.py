"""Which entries stay: drawn by hand for what is meant, and against the plainest rule for whatever else there may be."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from nous.protocol.entries import ModelChange
from nous.protocol.messages import Message
from nous.store.pruning import PrunePlan, plan_pruning
from nous.store.session_format import Checkpoint, Entry, LeafMove
from nous.store.session_tree import SessionTree
from tests.unit.store.helpers import NOW, compaction, message


def tree_of(
    entries: Sequence[Entry], pruned: dict[str, str] | None = None, models: dict[str, ModelChange] | None = None
) -> SessionTree:
    tree = SessionTree(pruned, models)
    for entry in entries:
        tree.add(entry)
    return tree


def after(entries: Sequence[Entry], plan: PrunePlan) -> list[Entry]:
    return [changed or entries[place] for place, changed in plan.kept.items()]


def pruned_ids(entries: Sequence[Entry], retain: int = 0) -> list[str]:
    """What is left of a session, by ids; checked to be one."""
    plan = plan_pruning(entries, tree_of(entries), retain)
    left = after(entries, plan)
    tree_of(left, plan.pruned)
    return [entry.id for entry in left]


def row(ids: str, parent: str = "") -> list[Entry]:
    return [message(here, before) for here, before in zip(ids, [parent, *ids], strict=False)]


def checkpoint(leaf_id: str, entry_id: str = "p") -> Checkpoint:
    return Checkpoint(id=entry_id, parent_id=leaf_id, created_at=NOW)


def move(entry_id: str, leaf_id: str, parent_id: str = "") -> LeafMove:
    return LeafMove(id=entry_id, parent_id=parent_id, leaf_id=leaf_id, created_at=NOW)


class TestByHand:
    def test_without_a_checkpoint_everything_stays(self) -> None:
        entries = [*row("abc"), compaction("k1", "c"), move("l1", "a")]
        assert pruned_ids(entries) == ["a", "b", "c", "k1", "l1"]

    def test_what_was_not_compacted_stays(self) -> None:
        assert pruned_ids([*row("abc"), checkpoint("c")]) == ["a", "b", "c", "p"]

    def test_what_came_before_the_kept_messages_goes(self) -> None:
        entries = [*row("abcd"), compaction("k1", "d", "c"), message("e", "d"), checkpoint("e")]
        assert pruned_ids(entries) == ["c", "d", "k1", "e", "p"]
        assert plan_pruning(entries, tree_of(entries), 0).pruned == {"b": "k1"}

    def test_everything_may_go(self) -> None:
        entries = [*row("abc"), compaction("k1", "c"), checkpoint("c")]
        plan = plan_pruning(entries, tree_of(entries), 0)
        assert [entry.id for entry in after(entries, plan)] == ["k1", "p"]
        assert (plan.pruned, plan.removed_messages) == ({"c": "k1"}, 3)
        assert tree_of(after(entries, plan), plan.pruned).leaf_id == "c"

    def test_another_branch_that_needs_them_keeps_them(self) -> None:
        entries = [*row("abc"), message("x", "b"), compaction("k1", "c", "c"), checkpoint("x")]
        assert pruned_ids(entries) == ["a", "b", "c", "x", "k1", "p"]

    def test_so_does_the_active_leaf(self) -> None:
        entries = [*row("abcd"), compaction("k1", "d"), move("l1", "b"), checkpoint("b")]
        assert pruned_ids(entries) == ["a", "b", "k1", "p"]
        entries = [*row("abcd"), compaction("k1", "d", "d"), move("l1", "b"), checkpoint("b")]
        assert pruned_ids(entries) == ["a", "b", "d", "k1", "p"]

    def test_the_newest_are_retained(self) -> None:
        entries = [*row("abcd"), compaction("k1", "d"), checkpoint("d")]
        left = [pruned_ids(entries, retain) for retain in range(6)]
        assert left[0] == ["k1", "p"]
        assert left[1] == ["d", "k1", "p"]
        assert left[3] == ["b", "c", "d", "k1", "p"]
        assert left[4] == left[5] == ["a", "b", "c", "d", "k1", "p"]

    def test_what_stands_behind_the_checkpoint_stays(self) -> None:
        entries = [*row("abc"), checkpoint("c"), *row("de", "c"), compaction("k1", "e"), move("l1", "a")]
        assert pruned_ids(entries) == ["a", "p", "d", "e", "k1", "l1"], "the leaf needs a"
        entries = [*row("abc"), checkpoint("c"), *row("de", "c"), compaction("k1", "e")]
        assert pruned_ids(entries) == ["p", "d", "e", "k1"]

    def test_a_summary_that_another_has_taken_over_goes(self) -> None:
        entries = [
            *row("abc"),
            compaction("k1", "c", "c"),
            *row("de", "c"),
            compaction("k2", "e", "e"),
            checkpoint("e"),
        ]
        assert pruned_ids(entries) == ["e", "k2", "p"]

    def test_a_summary_that_still_covers_something_stays_for_it(self) -> None:
        """y goes on where everything up to b was pruned; what k1 had kept besides goes now."""
        first = [*row("abcd"), compaction("k1", "d", "c"), message("y", "b"), checkpoint("y")]
        assert pruned_ids(first) == ["a", "b", "c", "d", "k1", "y", "p"], "y is not compacted"
        pruned = {"b": "k1"}
        entries = [
            *row("cd", "b"),
            compaction("k1", "d", "c"),
            message("y", "b"),
            compaction("k2", "d"),
            checkpoint("y"),
        ]
        plan = plan_pruning(entries, tree_of(entries, pruned), 0)
        left = after(entries, plan)
        assert [entry.id for entry in left] == ["k1", "y", "k2", "p"]
        assert left[0] == compaction("k1", "b", "", "summary k1")
        tree = tree_of(left, plan.pruned)
        assert [known.message.id for known in tree.path("y")] == ["k1", "y"]

    def test_a_branch_of_which_only_the_summary_is_left_can_be_gone_back_to(self) -> None:
        entries = [*row("ab"), compaction("k1", "b"), *row("xy"), checkpoint("y")]
        plan = plan_pruning(entries, tree_of(entries), 0)
        tree = tree_of(after(entries, plan), plan.pruned)
        assert (list(tree.messages), tree.leaf_id) == (["x", "y"], "y")
        assert [known.message.id for known in tree.path("b")] == ["k1"]
        again = plan_pruning(after(entries, plan), tree, 0)
        assert (again.removed_messages, again.pruned) == (0, {"b": "k1"})

    def test_moves_go_and_so_do_models_of_what_goes(self) -> None:
        def model(entry_id: str) -> ModelChange:
            return ModelChange(id=entry_id, parent_id="a", provider="x", model=entry_id, created_at=NOW)

        entries = [*row("ab"), model("m1"), model("m2"), compaction("k1", "b"), move("l1", "a"), move("l2", "b")]
        assert pruned_ids([*entries, checkpoint("b", "p1"), checkpoint("b", "p2")]) == ["k1", "p2"]

    def test_the_model_of_what_is_gone_is_remembered_where_something_goes_on_from_there(self) -> None:
        def model(entry_id: str, parent_id: str) -> ModelChange:
            return ModelChange(id=entry_id, parent_id=parent_id, provider="x", model=entry_id, created_at=NOW)

        early, late = model("m1", "a"), model("m2", "b")
        entries = [*row("a"), early, message("b", "a"), late, compaction("k1", "b"), message("c", "b"), checkpoint("c")]
        tree = tree_of(entries)
        plan = plan_pruning(entries, tree, 0)
        assert (list(plan.pruned), plan.models) == (["b"], {"b": early})
        rebuilt = tree_of(after(entries, plan), plan.pruned, plan.models)
        assert [rebuilt.model_at(at) for at in ("b", "c")] == [late, late]


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    kinds = st.sampled_from("mmmmtkkclpnn")
    return draw(st.lists(st.tuples(kinds, st.integers(0, 99), st.integers(0, 99)), max_size=30))


def contexts(tree: SessionTree, leaf_ids: Sequence[str]) -> dict[str, list[str]]:
    return {leaf_id: [known.message.id for known in tree.path(leaf_id)] for leaf_id in leaf_ids}


def tips(tree: SessionTree) -> list[str]:
    parents = {known.message.parent_id for known in tree.messages.values()}
    return [*(known for known in (*tree.messages, *tree.pruned) if known not in parents), tree.leaf_id]


@given(steps(), st.integers(0, 4))
def test_no_context_changes_whatever_is_pruned_when(script: list[tuple[str, int, int]], retain: int) -> None:
    entries: list[Entry] = []
    pruned: dict[str, str] = {}
    models: dict[str, ModelChange] = {}
    for number, (kind, choice, other) in enumerate([*script, ("c", 0, 0), ("p", 0, 0)]):
        tree = tree_of(entries, pruned, models)
        known = [*tree.messages, *pruned]
        parent_id = ["", *known][choice % (len(known) + 1)]
        if kind == "m":
            entries.append(message(f"m{number}", parent_id))
        elif kind == "t":
            entries.append(message(f"m{number}", tree.leaf_id))
        elif kind == "c":
            entries.append(checkpoint(tree.leaf_id, f"c{number}"))
        elif kind == "k" and parent_id:
            keepable = ["", *(item.message.id for item in tree.full_path(parent_id))]
            entries.append(compaction(f"k{number}", parent_id, keepable[other % len(keepable)]))
        elif kind == "l" and parent_id:
            entries.append(move(f"l{number}", parent_id, tree.leaf_id))
        elif kind == "n":
            entries.append(
                ModelChange(id=f"n{number}", parent_id=parent_id, provider="x", model=f"n{number}", created_at=NOW)
            )
        elif kind == "p":
            entries, pruned, models = check_pruning(entries, pruned, models, retain)


def check_pruning(
    entries: list[Entry], pruned: dict[str, str], models: dict[str, ModelChange], retain: int
) -> tuple[list[Entry], dict[str, str], dict[str, ModelChange]]:
    tree = tree_of(entries, pruned, models)
    plan = plan_pruning(entries, tree, retain)
    left = after(entries, plan)
    rebuilt = tree_of(left, plan.pruned, plan.models)
    assert contexts(rebuilt, tips(tree)) == contexts(tree, tips(tree))
    assert rebuilt.leaf_id == tree.leaf_id
    for leaf_id in ("", *rebuilt.messages, *plan.pruned):
        assert rebuilt.model_at(leaf_id) == tree.model_at(leaf_id)
    for message_id in (*rebuilt.messages, *plan.pruned):
        assert [item.message.id for item in rebuilt.path(message_id)][-1:] != []
        full = [item.message.id for item in rebuilt.full_path(message_id)]
        assert (
            message_id in plan.pruned or full == [item.message.id for item in tree.full_path(message_id)][-len(full) :]
        )
    # Nothing else stays: what no leaf's context holds, is not behind the checkpoint, and is not among the newest.
    order = [entry.id for entry in entries if isinstance(entry, Message)]
    places = [place for place, entry in enumerate(entries) if isinstance(entry, Checkpoint)]
    behind = {entry.id for entry in entries[places[-1] if places else 0 :]}
    wanted = {message_id for context in contexts(tree, tips(tree)).values() for message_id in context}
    wanted |= behind | set(order[-retain:] if retain else ())
    assert list(rebuilt.messages) == [message_id for message_id in order if message_id in wanted]
    assert plan.removed_messages == len(order) - len(rebuilt.messages)
    again = plan_pruning(left, rebuilt, retain)
    assert (again.removed_messages, after(left, again), again.pruned) == (0, left, plan.pruned)
    return left, plan.pruned, plan.models
