"""The two queues of a run: what the user said while it was busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal, NamedTuple

from nous.protocol.commands import QueueMode
from nous.protocol.events import Discarded, encode_json

QueueKind = Literal["steer", "follow_up"]


class Queued(NamedTuple):
    """An input with the id of the command that brought it."""

    command_id: str
    text: str


class InputQueues:
    """``take`` gives the next turn's inputs: steers first; one of them, or in mode ``all`` all of that kind."""

    def __init__(self, steering_mode: QueueMode, follow_up_mode: QueueMode) -> None:
        self._queues: dict[QueueKind, deque[Queued]] = {"steer": deque(), "follow_up": deque()}
        self.modes: dict[QueueKind, QueueMode] = {"steer": steering_mode, "follow_up": follow_up_mode}

    @property
    def steered(self) -> bool:
        """Whether a steer is queued."""
        return bool(self._queues["steer"])

    def count(self, kind: QueueKind) -> int:
        """Return how many inputs of a kind are queued."""
        return len(self._queues[kind])

    @property
    def characters(self) -> int:
        """How long the queued texts are together."""
        return sum(len(queued.text) for queue in self._queues.values() for queued in queue)

    def add(self, kind: QueueKind, command_id: str, text: str) -> None:
        """Queue an input behind the others of its kind."""
        self._queues[kind].append(Queued(command_id, text))

    def take(self) -> tuple[QueueKind, list[Queued]] | None:
        """Take the inputs of the next turn; None if nothing is queued."""
        for kind, queue in self._queues.items():
            if queue:
                count = len(queue) if self.modes[kind] == "all" else 1
                return kind, [queue.popleft() for _ in range(count)]
        return None

    def put_back(self, kind: QueueKind, inputs: Sequence[Queued]) -> None:
        """Put inputs that were taken back where they stood: before all others of their kind."""
        self._queues[kind].extendleft(reversed(inputs))

    def discard(self, inline_bytes: int) -> tuple[Discarded, ...]:
        """Empty both queues and hand their inputs back, texts inline up to ``inline_bytes`` of JSON in all."""
        out: list[Discarded] = []
        left = inline_bytes
        for kind, queue in self._queues.items():
            for command_id, text in queue:
                shown_bytes = len(encode_json(text))
                if shown_bytes <= left:
                    left -= shown_bytes
                    out.append(Discarded(command_id=command_id, kind=kind, text=text))
                else:
                    size = len(text.encode())
                    out.append(Discarded(command_id=command_id, kind=kind, text="", text_bytes=size, text_omitted=True))
            queue.clear()
        return tuple(out)
