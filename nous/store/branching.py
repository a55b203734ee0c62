"""What a branch of a session starts with: a path, and the compactions under which a model sees it the same there."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from msgspec.structs import replace

from nous.protocol.entries import Compaction
from nous.store.session_format import Entry, LeafMove
from nous.store.session_tree import SessionTree


class BranchContent(NamedTuple):
    """Entries in the order of the file, and the header's ``pruned``."""

    entries: list[Entry]
    pruned: dict[str, str]


def branch_content(tree: SessionTree, leaf_id: str, new_id: str, created_at: str) -> BranchContent:
    """Return what a branch at ``leaf_id`` holds: the messages up to it, with their ids, and what was tied to them.

    Raises:
        TreeError: there is no such message.
    """
    messages = [known.message for known in tree.full_path(leaf_id)]
    root_id = messages[0].parent_id if messages else leaf_id
    on_path = {message.id for message in messages}
    kept_from = {"", *on_path}
    tied: defaultdict[str, list[Entry]] = defaultdict(list)
    for change in tree.models_along([message.id for message in messages] or [root_id]):
        at = change.parent_id if change.parent_id in on_path else root_id
        tied[at].append(replace(change, parent_id=at))
    for compaction in tree.compactions.values():
        if compaction.parent_id in on_path and compaction.first_kept_entry_id in kept_from:
            tied[compaction.parent_id].append(compaction)
    pruned: dict[str, str] = {}
    entries = [*tied[root_id]]
    if root_id:
        # Compacted anew since it was pruned: the summary in force there is that one.
        made = tree.made_at(root_id)
        is_newer = made is not None and not made.first_kept_entry_id
        covering = made if made is not None and is_newer else tree.compactions[tree.pruned[root_id]]
        pruned[root_id] = covering.id
        if covering not in tied[covering.parent_id]:
            entries.append(_moved(covering, root_id))
    for message in messages:
        entries += [message, *tied[message.id]]
    if root_id and not messages:
        entries.append(LeafMove(id=f"{new_id}-leaf", leaf_id=root_id, created_at=created_at))
    return BranchContent(entries, pruned)


def _moved(covering: Compaction, root_id: str) -> Compaction:
    """Return the compaction as one that was made at ``root_id``, because the branch has nothing of what it kept."""
    return replace(covering, parent_id=root_id, first_kept_entry_id="")
