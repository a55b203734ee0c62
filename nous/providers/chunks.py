"""A conversation as the bytes it is in a request, kept in chunks: a request costs what was added since.  Pure.

A chunk is made of turns that are over, and is the same in every request of every path that goes through it.  So it
ends where a turn of the model's ends and another one begins, with both of them settled: no dialect says anything
there but a comma.  The last two turns that are not the model's stay out of it; marks for a vendor's cache go there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from nous.ports.model import ContextMessage
from nous.providers.history import Chunk, History
from nous.providers.wire import MessageEncoder

CHUNK_MESSAGES: Final = 64
"""A chunk has this many messages, and the rest of a turn.  About as many again are joined anew in a request."""


class Chunks:
    """Joins a conversation with ``join``, which returns messages as a dialect has them, with commas between them.

    A message's bytes are kept once: with the message by ``encoders``, or in a chunk.
    """

    def __init__(self, join: Callable[[Sequence[ContextMessage]], bytes], *encoders: MessageEncoder) -> None:
        self._key = encoders[0].key
        self._join = join
        self._encoders = encoders

    def split(self, history: History) -> tuple[list[bytes], list[ContextMessage]]:
        """Return the beginning of a history as bytes, each with a comma at its end, and the messages behind it.

        If there is a beginning, the messages hold the last two turns that are not the model's.
        """
        kept = history.trunk.chunks.setdefault(self._key, [])
        used = len(kept)
        while used and not _is_inside(kept[used - 1].end, history):
            used -= 1
        start = kept[used - 1].end if used else 0
        rest = history.after(start)
        # Chunks that this path is too short for belong to longer ones: there is nothing to add behind them.
        if len(rest) > CHUNK_MESSAGES and used == len(kept):
            rest = self._make_chunks(kept, start, rest)
            used = len(kept)
        return [chunk.data for chunk in kept[:used]], rest

    def _make_chunks(self, kept: list[Chunk], start: int, rest: list[ContextMessage]) -> list[ContextMessage]:
        """Make chunks of what is over; return what is left."""
        begin = 0
        for position in range(CHUNK_MESSAGES, _open_from(rest) + 1):
            if position - begin >= CHUNK_MESSAGES and _is_asked_anew(rest, position):
                messages = rest[begin:position]
                kept.append(Chunk(start + position, self._join(messages) + b","))
                for encoder in self._encoders:
                    encoder.forget(messages)
                begin = position
        return rest[begin:]


def _is_inside(end: int, history: History) -> bool:
    """Return whether a chunk's end is one on this path too, with two turns behind it that are not the model's."""
    return end < history.length and _open_from(history.after(end)) >= 0


def _open_from(messages: Sequence[ContextMessage]) -> int:
    """Return where the last two turns that are not the model's begin; -1 if there are no two.

    A turn of the model's stands between them, so all before the first one and its beginning are settled.
    """
    turns = 0
    for position in range(len(messages) - 1, -1, -1):
        turns += _is_asked_anew(messages, position)
        if turns == 2:
            return position
    return -1


def _is_asked_anew(messages: Sequence[ContextMessage], position: int) -> bool:
    """Return whether a turn begins here that is not the model's."""
    if messages[position].message.role == "assistant":
        return False
    return position == 0 or messages[position - 1].message.role == "assistant"
