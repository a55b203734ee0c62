"""What a client needs of a connection, and the one over a Unix socket (the other is a process's pipes)."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import anyio
from anyio.abc import SocketStream

from nous.errors import NousError

READ_BYTES: Final = 64 * 1024


class Link(Protocol):
    """``receive`` returns ``b""`` at the end; ``send`` raises OSError if nobody will read it.

    One task receives and one sends.  ``end_input`` says that no more will be sent; it is called once, by the sender.
    """

    async def receive(self) -> bytes: ...

    async def send(self, data: bytes) -> None: ...

    async def end_input(self) -> None: ...


class SocketLink:
    """A connected Unix socket."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream

    @classmethod
    async def connect(cls, path: Path) -> SocketLink:
        """Connect to the daemon that serves ``path``.

        Raises:
            NousError: ``io_failure`` if there is no socket or nobody answers, ``invalid_usage`` if it is none.
        """
        try:
            return cls(await anyio.connect_unix(str(path)))
        except OSError as error:
            raise _explain(path, error) from error

    async def receive(self) -> bytes:
        try:
            return await self._stream.receive(READ_BYTES)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return b""

    async def send(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise BrokenPipeError from error

    async def end_input(self) -> None:
        with suppress(OSError):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _explain(path: Path, error: OSError) -> NousError:
    hint = f"Start one: nous serve --socket {path}"
    if isinstance(error, FileNotFoundError):
        return NousError("io_failure", f"there is no socket at {path}", hint=hint)
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        is_socket = True
    if not is_socket:
        return NousError("invalid_usage", f"{path} is not a socket")
    if isinstance(error, ConnectionRefusedError):
        return NousError("io_failure", f"nobody answers at {path}", hint=hint)
    return NousError("io_failure", f"cannot connect to {path}: {error.strerror or error}")
