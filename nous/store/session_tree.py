"""A session in memory: a tree of messages, the active leaf, and the paths that runs ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, overload

from nous.ports.model import ContextMessage
from nous.protocol.messages import Message
from nous.store.session_format import Entry

_KEPT_PATHS: Final = 4
"""How many paths are kept extended: a session is rarely continued on more branches than this at a time."""


class TreeError(Exception):
    """An entry or a leaf does not fit the tree; the text says why."""


class PathView(Sequence[ContextMessage]):
    """The first ``length`` messages of a path.  It stays as it is while the path behind it grows."""

    __slots__ = ("_length", "_path")

    def __init__(self, path: list[ContextMessage]) -> None:
        self._path = path
        self._length = len(path)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> ContextMessage: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ContextMessage]: ...

    def __getitem__(self, index: int | slice) -> ContextMessage | Sequence[ContextMessage]:
        if isinstance(index, slice):
            return [self._path[i] for i in range(*index.indices(self._length))]
        return self._path[range(self._length)[index]]

    def __iter__(self) -> Iterator[ContextMessage]:
        return islice(self._path, self._length)


class SessionTree:
    """Entries by id, in the order of the file.  Adding one and finding the leaf cost the same at any size.

    ``leaf_id`` is the active leaf (``""`` while there is no message): every message becomes it as it is added, a
    leaf move chooses another.
    """

    def __init__(self) -> None:
        self.messages: dict[str, ContextMessage] = {}
        self.leaf_id = ""
        self.updated_at = ""
        self._moves: set[str] = set()
        self._paths: dict[str, list[ContextMessage]] = {}

    def check(self, entry: Entry) -> None:
        """Raise :class:`TreeError` if the entry does not fit: its id is taken, or what it points to is not there."""
        if not entry.id or entry.id in self.messages or entry.id in self._moves:
            raise TreeError(f"the id {entry.id!r} is taken")
        if entry.parent_id and entry.parent_id not in self.messages:
            raise TreeError(f"there is no message {entry.parent_id!r} to follow")
        if not isinstance(entry, Message) and entry.leaf_id not in self.messages:
            raise TreeError(f"there is no message {entry.leaf_id!r} to move to")

    def add(self, entry: Entry) -> None:
        """Take an entry in.  Raises what :meth:`check` raises, and then nothing has changed."""
        self.check(entry)
        if isinstance(entry, Message):
            self._add_message(entry)
        else:
            self._moves.add(entry.id)
            self.leaf_id = entry.leaf_id
        self.updated_at = entry.created_at

    def path(self, leaf_id: str) -> Sequence[ContextMessage]:
        """Return the messages from the root to ``leaf_id`` (none for ``""``).

        Costs the path's length the first time; then the path is kept, and grows with what is added at its leaf.
        """
        path = self._paths.pop(leaf_id, None)
        if path is None:
            path = self._walk(leaf_id)
        if path:
            self._paths[leaf_id] = path
            if len(self._paths) > _KEPT_PATHS:
                del self._paths[next(iter(self._paths))]
        return PathView(path)

    def _add_message(self, message: Message) -> None:
        added = ContextMessage(message)
        self.messages[message.id] = added
        self.leaf_id = message.id
        path = self._paths.pop(message.parent_id, None)
        if path is not None:
            path.append(added)
            self._paths[message.id] = path

    def _walk(self, leaf_id: str) -> list[ContextMessage]:
        path: list[ContextMessage] = []
        at = leaf_id
        while at:
            found = self.messages.get(at)
            if found is None:
                raise TreeError(f"there is no message {at!r}")
            path.append(found)
            at = found.message.parent_id
        path.reverse()
        return path
