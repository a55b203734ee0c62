"""A session in memory: a tree of messages, the active leaf, the compactions, and the paths that runs ask for.

A compaction is tied to the message it was made on and holds for every leaf at or below it: the context there is its
summary, then the messages from the first one it kept.  The one nearest to the leaf is in force; of several on one
message, the last.  A context is known by its leaf and the compaction in force: these two never give another path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from nous.ports.model import ContextMessage
from nous.protocol.entries import Compaction, ModelChange, summary_message
from nous.protocol.messages import Message
from nous.store.session_format import Checkpoint, Entry, LeafMove
from nous.store.session_path import MESSAGES_PER_STEP, Path, PathView
from nous.system.collector import set_aside
from nous.system.steps import Steps, complete

_KEPT_PATHS: Final = 6
"""How many paths are kept extended: a session is rarely continued on more than two branches at a time."""

_UNCOMPACTED: Final = ""
_WHOLE: Final = "*"
"""Asks for every message of a path, whatever was compacted.  No compaction has such an id."""

_FREED_PER_STEP: Final = 500
_FREED_CHARACTERS: Final = 4 * 1024 * 1024

_Key = tuple[str, str | None]
"""A leaf, and the compaction that was asked for: ``None`` is the one in force."""


class TreeError(Exception):
    """An entry or a leaf does not fit the tree; the text says why."""


class SessionTree:
    """Entries by id, in the order of the file.  Adding one and finding the leaf cost the same at any size.

    ``leaf_id`` is the active leaf (``""`` while there is no message): every message becomes it as it is added, a
    leaf move chooses another.  ``pruned`` names messages that were removed but are still pointed to, each with the
    compaction whose summary covers it: a path that would go on there begins with that summary.  ``models`` says under
    which change of the model they were added.
    """

    def __init__(
        self, pruned: Mapping[str, str] | None = None, models: Mapping[str, ModelChange] | None = None
    ) -> None:
        self.messages: dict[str, ContextMessage] = {}
        self.compactions: dict[str, Compaction] = {}
        self.pruned: Mapping[str, str] = pruned or {}
        self.checkpoint: Checkpoint | None = None
        self.leaf_id = ""
        self.updated_at = ""
        self._others: set[str] = set()
        self._model_changed_at: dict[str, ModelChange] = {}
        self._model_above: dict[str, ModelChange] = dict(models or {})
        self._in_force_at: dict[str, Compaction] = {}
        self._summaries: dict[str, ContextMessage] = {}
        self._paths: dict[_Key, Path] = {}

    def check(self, entry: Entry) -> None:
        """Raise :class:`TreeError` if the entry does not fit: its id is taken, or what it points to is not there."""
        if not entry.id or self.knows(entry.id) or entry.id in self.compactions or entry.id in self._others:
            raise TreeError(f"the id {entry.id!r} is taken")
        if entry.parent_id and not self.knows(entry.parent_id):
            raise TreeError(f"there is no message {entry.parent_id!r} to follow")
        if isinstance(entry, LeafMove) and not self.knows(entry.leaf_id):
            raise TreeError(f"there is no message {entry.leaf_id!r} to move to")
        if isinstance(entry, Compaction):
            self._check_compaction(entry)

    def add(self, entry: Entry) -> None:
        """Take an entry in.  Raises what :meth:`check` raises, and then nothing has changed."""
        self.check(entry)
        if isinstance(entry, Message):
            self._add_message(entry)
        elif isinstance(entry, Compaction):
            self._add_compaction(entry)
        else:
            self._others.add(entry.id)
            if isinstance(entry, LeafMove):
                self.leaf_id = entry.leaf_id
            elif isinstance(entry, ModelChange):
                self._model_changed_at[entry.parent_id] = entry
            else:
                self.checkpoint = entry
                self.leaf_id = entry.parent_id
                return  # a checkpoint is housekeeping: nothing was said
        self.updated_at = entry.created_at

    def model_at(self, leaf_id: str) -> ModelChange | None:
        """Return the change of the model in force at a leaf: the last one made there, or what it was added under."""
        return self._model_changed_at.get(leaf_id) or self._model_above.get(leaf_id)

    def model_above(self, message_id: str) -> ModelChange | None:
        """Return the change of the model in force where and when a message was added."""
        return self._model_above.get(message_id)

    def models_along(self, path: Iterable[str]) -> list[ModelChange]:
        """Return the changes that were in force on a path (ids of messages, in order), each once, in order."""
        ids = list(path)
        changes = [self._model_above.get(message_id) for message_id in ids]
        changes.append(self.model_at(ids[-1] if ids else ""))
        return list({change.id: change for change in changes if change is not None}.values())

    def knows(self, message_id: str) -> bool:
        """Tell whether there is, or was before pruning, such a message."""
        return message_id in self.messages or message_id in self.pruned

    def path(self, leaf_id: str, compaction_id: str | None = None) -> PathView:
        """Return what a model is asked with at ``leaf_id`` (nothing for ``""``).

        ``compaction_id``: as under that compaction, or uncompacted (``""``), instead of under the one in force.
        Costs the path's length the first time; then the path is kept, and grows with what is added at its leaf.
        """
        return PathView(complete(self._find_path(leaf_id, compaction_id)))

    def path_in_steps(self, leaf_id: str, compaction_id: str | None = None) -> Steps[PathView]:
        """Do as :meth:`path`, in steps, and measure it: asked for then, it and what it costs are there."""
        path = yield from self._find_path(leaf_id, compaction_id)
        view = PathView(path)
        yield from path.measure()
        return view

    def made_at(self, message_id: str) -> Compaction | None:
        """Return the compaction that was made on a message, the last one if there are several."""
        return self._in_force_at.get(message_id)

    def full_path(self, leaf_id: str) -> Sequence[ContextMessage]:
        """Do as :meth:`full_path_in_steps`, at once."""
        return complete(self.full_path_in_steps(leaf_id))

    def full_path_in_steps(self, leaf_id: str) -> Steps[PathView]:
        """Return, in steps, the messages from the root to ``leaf_id``, as far back as they were not pruned.

        What it costs is that of :meth:`path`.
        """
        return PathView((yield from self._find_path(leaf_id, _WHOLE)))

    def take_apart(self) -> Steps[None]:
        """Let go of all messages in steps.  Nobody may use the tree any more; paths that were returned stay."""
        self._paths.clear()
        for summary in self._summaries.values():
            summary.forget()
        count = size = 0
        while self.messages:
            _, entry = self.messages.popitem()
            entry.forget()
            count += 1
            size += len(entry.message.text)
            if count == _FREED_PER_STEP or size > _FREED_CHARACTERS:
                count = size = 0
                yield

    def _find_path(self, leaf_id: str, compaction_id: str | None) -> Steps[Path]:
        key = (leaf_id, compaction_id)
        path = self._paths.pop(key, None)
        while path is None:
            compactions = len(self.compactions)
            found = Path([], _UNCOMPACTED)
            yield from self._walk(found, leaf_id, compaction_id)
            if compactions == len(self.compactions):
                path = found  # otherwise another one may be in force now
        if path.messages:
            self._paths[key] = path
            if compaction_id is None:
                # Asked for by name it is the same.
                self._paths[leaf_id, path.compaction_id] = path
            while len(self._paths) > _KEPT_PATHS:
                del self._paths[next(iter(self._paths))]
        return path

    def _check_compaction(self, entry: Compaction) -> None:
        if not entry.parent_id:
            raise TreeError("there is nothing to compact at the root")
        first = entry.first_kept_entry_id
        at = entry.parent_id
        while first and at != first:
            found = self.messages.get(at)
            if found is None:
                raise TreeError(f"{first!r} is not on the path to {entry.parent_id!r}")
            at = found.message.parent_id
        if first and first not in self.messages:
            raise TreeError(f"there is no message {first!r} to keep")

    def _add_message(self, message: Message) -> None:
        added = ContextMessage(message)
        self.messages[message.id] = added
        if (change := self.model_at(message.parent_id)) is not None:
            self._model_above[message.id] = change
        self.leaf_id = message.id
        grown = [key for key in self._paths if key[0] == message.parent_id] if message.parent_id else []
        paths = [self._paths.pop(key) for key in grown]
        for path in {id(path): path for path in paths}.values():
            path.messages.append(added)
        self._paths.update(((message.id, key[1]), path) for key, path in zip(grown, paths, strict=True))

    def _add_compaction(self, entry: Compaction) -> None:
        self.compactions[entry.id] = entry
        self._in_force_at[entry.parent_id] = entry
        # Where it holds now another path is in force; what was asked for by name stays what it is.
        self._paths = {key: path for key, path in self._paths.items() if key[1] is not None}

    def _walk(self, path: Path, leaf_id: str, compaction_id: str | None) -> Steps[None]:
        """Go up from the leaf to the first message that the compaction keeps, or to the root."""
        messages = path.messages
        holds: Compaction | None = None
        at = leaf_id
        while at:
            if holds is None and compaction_id != _WHOLE:
                holds = self._holding_at(at, compaction_id)
                if holds is not None and not holds.first_kept_entry_id:
                    break
            if at in self.pruned:
                if compaction_id != _WHOLE:
                    holds = self._summary_of_pruned(at, holds, compaction_id)
                break
            messages.append(self._find(at))
            if holds is not None and at == holds.first_kept_entry_id:
                break
            at = messages[-1].message.parent_id
            if len(messages) % MESSAGES_PER_STEP == 0:
                if len(messages) == MESSAGES_PER_STEP:
                    set_aside()
                yield
        if compaction_id not in (None, _UNCOMPACTED, _WHOLE) and (holds is None or holds.id != compaction_id):
            raise TreeError(f"the compaction {compaction_id!r} does not hold at {leaf_id!r}")
        if holds is not None:
            messages.append(self._summary(holds))
            path.compaction_id = holds.id
        messages.reverse()

    def _holding_at(self, message_id: str, compaction_id: str | None) -> Compaction | None:
        if compaction_id is None:
            return self.made_at(message_id)
        asked = self.compactions.get(compaction_id)
        return asked if asked is not None and asked.parent_id == message_id else None

    def _summary_of_pruned(self, message_id: str, holds: Compaction | None, compaction_id: str | None) -> Compaction:
        """Return the compaction that covers a removed message, if it is one that was asked for."""
        covering = self.compactions.get(self.pruned[message_id])
        if holds is not None or covering is None or compaction_id not in (None, covering.id):
            raise TreeError(f"the messages up to {message_id!r} were pruned")
        return covering

    def _summary(self, compaction: Compaction) -> ContextMessage:
        """Return the summary as a message, always the same one, so that its encodings are kept."""
        made = self._summaries.get(compaction.id)
        if made is None:
            made = self._summaries[compaction.id] = ContextMessage(summary_message(compaction))
        return made

    def _find(self, message_id: str) -> ContextMessage:
        found = self.messages.get(message_id)
        if found is None:
            raise TreeError(f"there is no message {message_id!r}")
        return found
