"""A path of a session: what a model is asked with at one leaf, in order."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, overload

from nous.engine.summary import estimate_tokens
from nous.ports.model import ContextMessage
from nous.store.left_out import SeenImages, show_without
from nous.system.steps import Steps

MESSAGES_PER_STEP: Final = 1000
"""So many messages may be looked at in one step: a few milliseconds of work."""


class Path:
    """The messages of a path, which grows at its end; ``compaction_id`` names the summary it begins with, if any."""

    __slots__ = ("_shown", "_tokens", "compaction_id", "images", "messages")

    def __init__(self, messages: list[ContextMessage], compaction_id: str) -> None:
        self.messages = messages
        self.compaction_id = compaction_id
        self.images = SeenImages(messages)
        self._tokens = array("q", [0])
        self._shown: tuple[frozenset[str], _ShownPath] | None = None

    def measure(self) -> Steps[None]:
        """Measure all messages in steps, so that asking for sums costs nothing."""
        for length in range(MESSAGES_PER_STEP, len(self.messages), MESSAGES_PER_STEP):
            self._measure(length)
            yield
        self._measure(len(self.messages))

    def _measure(self, length: int) -> None:
        self.tokens(length)
        self.images.left_out(length)

    def tokens(self, length: int) -> int:
        """Return the estimated size of the first ``length`` messages.  Each message is measured once."""
        sums = self._tokens
        while len(sums) <= length:
            sums.append(sums[-1] + estimate_tokens(self.messages[len(sums) - 1].message))
        return sums[length]

    def without_images(self, left_out: frozenset[str], length: int) -> Path:
        """Return a path whose first ``length`` messages are this one's without the images of those in ``left_out``.

        It is kept, and grows, until other images are left out.
        """
        if self._shown is None or self._shown[0] != left_out:
            self._shown = (left_out, _ShownPath([], self.compaction_id))
        shown = self._shown[1]
        shown.messages += show_without(self.messages[len(shown.messages) : length], left_out)
        return shown


class _ShownPath(Path):
    """A path with messages of its own, which nobody else has."""

    __slots__ = ()

    def __del__(self) -> None:
        # The garbage collector would not find the cycles that adapters made of them (see ContextMessage).
        for item in self.messages:
            item.forget()


class PathView(Sequence[ContextMessage]):
    """The first ``length`` messages of a path.  It stays as it is while the path behind it grows."""

    __slots__ = ("_length", "_path")

    def __init__(self, path: Path, length: int | None = None) -> None:
        self._path = path
        self._length = len(path.messages) if length is None else length

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
        """Whether any of its messages holds an image that is not left out.  Costs as :attr:`estimated_tokens`."""
        return bool(self.suspect_images())

    def shown(self, left_out: Sequence[str] = ()) -> PathView:
        """Return the messages as a model is asked with them.

        A text stands in place of the images of the messages in ``left_out``, and of those that answers on the path name
        as left out.
        """
        ids = self._path.images.left_out(self._length).union(left_out)
        return PathView(self._path.without_images(ids, self._length), self._length) if ids else self

    def suspect_images(self, left_out: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the messages with the images that a provider may have refused, asked with ``shown(left_out)``.

        These are the ones that no model has answered to yet; if there are none, all that are not left out.
        """
        ids = self._path.images.left_out(self._length).union(left_out)
        return self._path.images.suspects(self._length, ids)

    def after(self, start: int) -> Iterator[ContextMessage]:
        """Return the messages from position ``start`` on, without a list of them."""
        return (self._path.messages[index] for index in range(start, self._length))

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
