"""Which entries of a session can go: what was compacted, and no leaf's context needs any more.  Pure.

Kept are the contexts of all leaves (the tips of the tree, and the active one), whatever stands behind the last
checkpoint, and the newest messages somebody wants to retain.  A message that goes but is a leaf, or is still pointed to
(as the parent of one that stays), is remembered with the compaction whose summary covers it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from msgspec.structs import replace

from nous.protocol.entries import Compaction, ModelChange
from nous.protocol.messages import Message
from nous.store.session_format import Checkpoint, Entry, LeafMove
from nous.store.session_tree import SessionTree


class PrunePlan(NamedTuple):
    """What stays: the places of the entries, each with its new form or None if it stays as it is.

    ``models`` says of removed messages that are still pointed to which change of the model they were added under.
    """

    kept: dict[int, Entry | None]
    pruned: dict[str, str]
    models: dict[str, ModelChange]
    removed_messages: int


def plan_pruning(entries: Sequence[Entry], tree: SessionTree, retain: int) -> PrunePlan:
    """Return what of ``entries`` (all of the session, in order) stays; ``tree`` holds the same entries.

    ``retain`` is how many of the newest messages stay in any case.  Without a checkpoint everything does.
    """
    checkpoint_at = max((k for k, entry in enumerate(entries) if isinstance(entry, Checkpoint)), default=0)
    order = [entry.id for entry in entries if isinstance(entry, Message)]
    newer = {entry.id for entry in entries[checkpoint_at:] if isinstance(entry, Message)}
    contexts = _Contexts(tree)
    stays = contexts.needed | newer | set(order[max(0, len(order) - retain) :])
    kept: dict[int, Entry | None] = {}
    for place, entry in enumerate(entries):
        if _stays(entry, tree, stays, is_newer=place >= checkpoint_at):
            kept[place] = None
    pointed_to = _pointed_to(entries[place] for place in kept)
    pruned = contexts.covers(pointed_to.union(contexts.leaves) - stays)
    moved_to = {covering: message_id for message_id, covering in reversed(pruned.items())}
    for place, entry in enumerate(entries):
        if isinstance(entry, Compaction) and entry.id in moved_to and place not in kept:
            # Of what it kept something is gone, but for what stays it is still the summary of all before.
            kept[place] = replace(entry, parent_id=moved_to[entry.id], first_kept_entry_id="")
        elif isinstance(entry, ModelChange) and entry.parent_id in pruned:
            kept[place] = None
    models = {message_id: change for message_id in pruned if (change := tree.model_above(message_id)) is not None}
    removed_messages = sum(message_id not in stays for message_id in order)
    return PrunePlan(dict(sorted(kept.items())), pruned, models, removed_messages)


def _stays(entry: Entry, tree: SessionTree, stays: set[str], *, is_newer: bool) -> bool:
    if isinstance(entry, Message):
        return entry.id in stays
    if isinstance(entry, Compaction):
        return _is_whole(entry, tree, stays)
    if isinstance(entry, LeafMove):
        return is_newer  # the checkpoint says where the leaf was
    if isinstance(entry, ModelChange):
        return is_newer or not entry.parent_id or entry.parent_id in stays
    return entry == tree.checkpoint


def _is_whole(compaction: Compaction, tree: SessionTree, stays: set[str]) -> bool:
    """Tell whether everything that the compaction kept stays."""
    at = compaction.parent_id
    if not compaction.first_kept_entry_id:
        return at in stays
    while at in stays and at != compaction.first_kept_entry_id:
        at = tree.messages[at].message.parent_id
    return at in stays


def _pointed_to(entries: Iterator[Entry]) -> set[str]:
    """Return the ids of the messages that entries point to."""
    found: set[str] = set()
    for entry in entries:
        found.add(entry.parent_id)
        if isinstance(entry, LeafMove):
            found.add(entry.leaf_id)
    return found - {""}


class _Contexts:
    """The contexts of all leaves: the messages they need, and what covers those before them."""

    def __init__(self, tree: SessionTree) -> None:
        self.needed: set[str] = set()
        self._tree = tree
        self._open: set[str] = set()
        self._ends: dict[str, str] = {}
        parents = {known.message.parent_id for known in tree.messages.values()}
        known = chain(tree.messages, tree.pruned)
        self.leaves = [message_id for message_id in known if message_id not in parents]
        if tree.leaf_id:
            self.leaves.append(tree.leaf_id)
        for leaf_id in self.leaves:
            self._follow(leaf_id)
        self._covers = dict(self._ends)
        for message_id, compaction_id in self._ends.items():
            self._cover_before(message_id, compaction_id)

    def covers(self, message_ids: set[str]) -> dict[str, str]:
        """Return the covering compaction of each message that goes, or went before."""
        return {message_id: self._covering(message_id) for message_id in sorted(message_ids)}

    def _covering(self, message_id: str) -> str:
        made = self._tree.made_at(message_id)
        if made is not None and not made.first_kept_entry_id:
            return made.id
        return self._tree.pruned.get(message_id) or self._covers[message_id]

    def _follow(self, leaf_id: str) -> None:
        """Mark the context of a leaf as needed, and where it ends what covers the rest."""
        tree, at = self._tree, leaf_id
        holds: Compaction | None = None
        while at:
            if holds is None:
                holds = tree.made_at(at)
                if holds is not None and not holds.first_kept_entry_id:
                    break
            if at in tree.pruned or (holds is None and at in self._open):
                return  # it went before, or another leaf came along here and had to go just as far up
            self.needed.add(at)
            if holds is None:
                self._open.add(at)
            parent_id = tree.messages[at].message.parent_id
            if holds is not None and at == holds.first_kept_entry_id:
                at = parent_id
                break
            at = parent_id
        if holds is not None and at:
            self._ends.setdefault(at, holds.id)

    def _cover_before(self, message_id: str, compaction_id: str) -> None:
        tree = self._tree
        at = tree.messages[message_id].message.parent_id if message_id in tree.messages else ""
        while at in tree.messages and at not in self._covers:
            self._covers[at] = compaction_id
            at = tree.messages[at].message.parent_id
