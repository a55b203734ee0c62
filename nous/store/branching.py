"""What a branch of a session starts with: a path, and the compactions under which a model sees it the same there."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from msgspec.structs import replace

from nous.protocol.entries import Compaction, ModelChange
from nous.protocol.messages import Message
from nous.store.session_format import Entry, LeafMove
from nous.store.session_path import MESSAGES_PER_STEP
from nous.store.session_tree import SessionTree
from nous.system.steps import Steps


class BranchContent(NamedTuple):
    """Entries in the order of the file, and the header's ``pruned``."""

    entries: list[Entry]
    pruned: dict[str, str]


def branch_content(tree: SessionTree, leaf_id: str, new_id: str, created_at: str) -> Steps[BranchContent]:
    """Return, in steps, what a branch at ``leaf_id`` holds: the messages up to it, with their ids, and what was tied
    to them.

    Raises:
        TreeError: there is no such message.
    """
    path = yield from tree.full_path_in_steps(leaf_id)
    messages: list[Message] = []
    on_path: set[str] = set()
    for known in path:
        messages.append(known.message)
        on_path.add(known.message.id)
        if len(messages) % MESSAGES_PER_STEP == 0:
            yield
    root_id = messages[0].parent_id if messages else leaf_id
    tied = yield from _tied(tree, messages, on_path, root_id)
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
    for number, message in enumerate(messages, 1):
        entries.append(message)
        entries += tied.get(message.id, ())
        if number % MESSAGES_PER_STEP == 0:
            yield
    if root_id and not messages:
        entries.append(LeafMove(id=f"{new_id}-leaf", leaf_id=root_id, created_at=created_at))
    return BranchContent(entries, pruned)


def _tied(
    tree: SessionTree, messages: list[Message], on_path: set[str], root_id: str
) -> Steps[defaultdict[str, list[Entry]]]:
    """Return the changes of the model and the compactions of a path by the message they were made at."""
    tied: defaultdict[str, list[Entry]] = defaultdict(list)
    changes: dict[str, ModelChange] = {}
    for start in range(0, len(messages) or 1, MESSAGES_PER_STEP):
        some = [message.id for message in messages[start : start + MESSAGES_PER_STEP]] or [root_id]
        changes.update((change.id, change) for change in tree.models_along(some))
        yield
    for change in changes.values():
        at = change.parent_id if change.parent_id in on_path else root_id
        tied[at].append(replace(change, parent_id=at))
    for compaction in tree.compactions.values():
        first = compaction.first_kept_entry_id
        if compaction.parent_id in on_path and (not first or first in on_path):
            tied[compaction.parent_id].append(compaction)
    return tied


def _moved(covering: Compaction, root_id: str) -> Compaction:
    """Return the compaction as one that was made at ``root_id``, because the branch has nothing of what it kept."""
    return replace(covering, parent_id=root_id, first_kept_entry_id="")
