"""An HTTP answer, whichever client brought it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class HttpAnswer(Protocol):
    """The head of an answer, and its body as it comes.  ``headers`` have names in lower case."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, names in lower case."""

    @property
    def waited_s(self) -> float:
        """How long its reader has waited for the peer so far, in seconds in which this process ran."""
        ...

    async def read(self) -> bytes:
        """Return everything that one network read delivered, or ``b""`` at the end, however often it is asked.

        Raises:
            NousError: ``provider_unavailable``: the connection broke (``cut``) or was silent for too long (``idle``).
        """
        ...

    async def aclose(self) -> None:
        """Close the connection at once, unless the answer was read to its end: then it serves the next call."""
        ...
