"""One end of a byte stream between a client and the daemon, whatever carries it."""

from __future__ import annotations

from typing import Protocol


class Endpoint(Protocol):
    """A connected byte stream.

    ``receive`` returns some bytes, or ``b""`` at the end of the stream.  ``send_nowait`` writes what fits without
    blocking and returns how many bytes that was (0 is fine); ``send`` writes everything.  Both raise
    :class:`BrokenEndpointError` if the peer is gone.  ``wait_closed`` returns once the peer will read no more, also
    while nothing is being sent.  Only one task sends and only one receives.
    """

    async def receive(self) -> bytes:
        """Return some bytes, or ``b""`` at the end of the stream."""

    def send_nowait(self, data: bytes) -> int:
        """Write what fits without blocking; return how many bytes that was."""

    async def send(self, data: bytes) -> None:
        """Write everything.  Raises :class:`BrokenEndpointError` if the peer is gone."""

    async def wait_closed(self) -> None:
        """Return once the peer will read no more."""

    async def aclose(self) -> None:
        """Close the connection."""


class BrokenEndpointError(Exception):
    """The peer is gone: nothing more can be written to it."""
