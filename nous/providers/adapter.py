"""What a vendor's adapter is: a pure request builder and a pure parser from event data to model items.

The HTTP room carries the bytes for all of them; a new vendor is a new adapter and a line in the registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.ports.model import ModelItem, ModelRequest, ToolSpec
from nous.providers.faults import CUT, ErrorReply
from nous.providers.sse import SseParser


class HttpRequest(Struct, frozen=True):
    """One request.  Keys stand in ``headers`` only; names are in lower case.

    The body is in ``parts``, most of which other requests have too: whoever can sends them without joining them.
    """

    url: str
    headers: dict[str, str]
    parts: tuple[bytes, ...] = ()
    method: Literal["POST", "GET"] = "POST"

    @property
    def body(self) -> bytes:
        """The body as one piece."""
        return b"".join(self.parts)

    @property
    def length(self) -> int:
        """Return how many bytes the body has."""
        return sum(map(len, self.parts))

    def __repr__(self) -> str:
        """Name what cannot be a secret."""
        return f"HttpRequest(url={self.url!r}, {self.length} bytes)"


class ItemParser(Protocol):
    """Turns the data of one answer's events into items, one parser per call.

    ``finished``: a finish reason has come and only usage is expected.  ``done``: nothing follows, the
    :class:`nous.ports.model.Finish` was given.
    """

    finished: bool
    done: bool

    def feed(self, data: bytes, items: list[ModelItem]) -> None:
        """Append what one event's data means to ``items``.

        Raises:
            NousError: the vendor reported a failure, or the data is none of its format.
        """
        ...

    def finish(self, items: list[ModelItem]) -> None:
        """The stream has ended: append what is still to be said, and the finish.

        Raises:
            NousError: ``provider_unavailable`` if no finish reason came after the last content; ``provider_error`` if
                nothing of the answer could be read.
        """
        ...


def finish_stream(events: SseParser, parser: ItemParser, items: list[ModelItem]) -> None:
    """The stream has ended: take a last event that lacks its empty line, then finish the answer.

    Raises:
        NousError: what the parser raises; ``provider_unavailable`` if the stream ends within an event.
    """
    data = events.finish()
    if data is not None and not parser.done:
        if not is_whole(data):
            raise NousError("provider_unavailable", CUT)
        parser.feed(data, items)
    if not parser.done:
        parser.finish(items)


def is_whole(data: bytes) -> bool:
    """Whether an event's data is not cut: JSON, or OpenAI's mark of the end."""
    if data.startswith(b"[DONE]"):
        return True
    try:
        msgspec.json.decode(data.decode("utf-8", "replace"), type=msgspec.Raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True


class Adapter(Protocol):
    """A vendor's dialect, bound to one endpoint and model."""

    name: str
    model: str
    url: str

    def build(self, request: ModelRequest) -> HttpRequest:
        """Return the HTTP request of a model call."""

    def parser(self, tools: Sequence[ToolSpec] = ()) -> ItemParser:
        """Return the parser of one answer to a request with ``tools``: it gives their names back as they are here."""
        ...

    def fault(self, reply: ErrorReply) -> NousError:
        """Return what an answer means that is not an event stream."""
        ...
