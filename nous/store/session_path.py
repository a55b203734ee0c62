"""A path of a session: what a model is asked with at one leaf, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import overload

from nous.engine.summary import estimate_tokens
from nous.ports.model import ContextMessage
from nous.protocol.messages import ImageBlock, Message


class Path:
    """The messages of a path, which grows at its end; ``compaction_id`` names the summary it begins with, if any."""

    __slots__ = ("_images", "_tokens", "compaction_id", "messages")

    def __init__(self, messages: list[ContextMessage], compaction_id: str) -> None:
        self.messages = messages
        self.compaction_id = compaction_id
        self._tokens = [0]
        self._images = [0]

    def tokens(self, length: int) -> int:
        """Return the estimated size of the first ``length`` messages.  Each message is measured once."""
        return self._sum(self._tokens, length, estimate_tokens)

    def images(self, length: int) -> int:
        """Return how many images the first ``length`` messages hold.  Each message is looked at once."""
        return self._sum(self._images, length, _count_images)

    def _sum(self, sums: list[int], length: int, measure: Callable[[Message], int]) -> int:
        while len(sums) <= length:
            sums.append(sums[-1] + measure(self.messages[len(sums) - 1].message))
        return sums[length]


def _count_images(message: Message) -> int:
    return sum(isinstance(block, ImageBlock) for block in message.blocks)


class PathView(Sequence[ContextMessage]):
    """The first ``length`` messages of a path.  It stays as it is while the path behind it grows."""

    __slots__ = ("_length", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._length = len(path.messages)

    @property
    def compaction_id(self) -> str:
        """The compaction whose summary is the first message, or ``""`` if the path goes back to its root."""
        return self._path.compaction_id

    @property
    def estimated_tokens(self) -> int:
        """About how many tokens it costs.  Asked at a leaf that grows, it costs what was added since."""
        return self._path.tokens(self._length)

    @property
    def has_images(self) -> bool:
        """Whether any of its messages holds an image.  Costs as :attr:`estimated_tokens`."""
        return self._path.images(self._length) > 0

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> ContextMessage: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ContextMessage]: ...

    def __getitem__(self, index: int | slice) -> ContextMessage | Sequence[ContextMessage]:
        messages = self._path.messages
        if isinstance(index, slice):
            return [messages[i] for i in range(*index.indices(self._length))]
        return messages[range(self._length)[index]]

    def __iter__(self) -> Iterator[ContextMessage]:
        return islice(self._path.messages, self._length)
