"""State-changing commands already answered, by id: the same id with the same body gets the same answer.

Source: protocol v1, section 4.  Per connection, the newest 1024, 1 MiB in all; refused commands are not kept.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

import anyio

from nous.errors import NousError
from nous.protocol.commands import Command

MAX_REMEMBERED: Final = 1024
MAX_REMEMBERED_BYTES: Final = 1024 * 1024


class Remembered:
    """A command that was taken up: its body, and its answer once there is one."""

    __slots__ = ("body", "done", "kind", "payload")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.kind = ""
        self.payload: bytes | None = None
        self.done = anyio.Event()

    @property
    def size(self) -> int:
        """How many bytes it holds."""
        return len(self.payload or b"") + len(self.body)


class RememberedAnswers:
    """The answers to a connection's last commands, by id, bounded in number and bytes: a command may be sent again."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, Remembered] = OrderedDict()
        self._bytes = 0

    def begin(self, command: Command) -> Remembered | None:
        """Note that ``command`` is under way and return None, or the entry of the same command sent before.

        Raises ``id_conflict`` if the id was used with another body.
        """
        body = hashlib.sha256(command.type.encode() + b"\n" + command.raw_payload).digest()
        entry = self._entries.get(command.id)
        if entry is None:
            self._entries[command.id] = Remembered(body)
            return None
        if entry.body != body:
            raise NousError("id_conflict")
        return entry

    def finish(self, command_id: str, kind: str, payload: bytes) -> None:
        """Keep the answer, and let go of the oldest ones past the bounds."""
        entry = self._entries[command_id]
        entry.kind, entry.payload = kind, payload
        entry.done.set()
        self._bytes += entry.size
        if self._over:
            self._evict()

    @property
    def _over(self) -> bool:
        return len(self._entries) > MAX_REMEMBERED or self._bytes > MAX_REMEMBERED_BYTES

    def _evict(self) -> None:
        for oldest, entry in list(self._entries.items()):
            if not self._over:
                return
            if entry.payload is not None:
                self._bytes -= entry.size
                del self._entries[oldest]

    def forget(self, command_id: str) -> None:
        """The command was refused: its id is free again, and whoever waits for its answer asks anew."""
        entry = self._entries.pop(command_id, None)
        if entry is not None:
            entry.done.set()

    def drop_unfinished(self, command_id: str) -> None:
        """Forget the command unless its answer is kept."""
        entry = self._entries.get(command_id)
        if entry is not None and entry.payload is None:
            self.forget(command_id)


async def repeated_answer(entry: Remembered) -> tuple[str, bytes] | None:
    """Wait for the answer of a repeated command; None if the first one was refused."""
    await entry.done.wait()
    return None if entry.payload is None else (entry.kind, entry.payload)
