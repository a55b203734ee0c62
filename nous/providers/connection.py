"""One HTTP/1.1 connection: a request out, an answer in, again and again.  httptools parses, nobody copies twice.

The parser is llhttp in C: a model's answer comes as thousands of small HTTP chunks, and a parser in Python would
cost more than all that happens to them afterwards.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import anyio
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from nous.errors import NousError
from nous.providers.faults import client_fault

READ_BYTES: Final = 64 * 1024
"""How much is read at a time, and handed on as one."""

MAX_OVERHEAD_BYTES: Final = 128 * 1024
"""How much a server may send without a byte of body in it: heads, trailers, extensions of chunks."""

MAX_PARTS: Final = 1024
"""How many pieces the system takes at once: IOV_MAX of Linux and macOS."""

_WANTS_READ: Final = (BlockingIOError, ssl.SSLWantReadError)


class Incoming:
    """What the parser tells of one answer.

    ``status`` is 0 until its head is there.  ``failure`` counts only after the body that came before it.
    """

    def __init__(self) -> None:
        self.failure: NousError | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_complete = False
        self.keeps_alive = False
        self._parts = 0
        self.body: list[bytes] = []
        # The parser calls this for every chunk: a method of a list costs less than one of ours.
        self.on_body = self.body.append
        self._parser: Any = HttpResponseParser(self)

    @property
    def is_framed(self) -> bool:
        """Whether the answer itself says where it ends; else it ends with the connection."""
        return "content-length" in self.headers or "transfer-encoding" in self.headers

    def feed(self, data: bytes) -> None:
        """Parse; what comes behind the answer's end makes the connection useless, and nothing else."""
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.keeps_alive = False
            if not self.is_complete:
                self.failure = client_fault("RemoteProtocolError")
        if self.is_complete:
            del self.body[self._parts :]

    def end(self) -> None:
        """The peer has closed; a failure if that is not where the answer ends."""
        if self.status and not self.is_framed:
            self.is_complete = True
        else:
            self.failure = client_fault("RemoteProtocolError")

    # -- called by the parser

    def on_message_begin(self) -> None:
        if self.is_complete:
            self.keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 or status == 101:
            self.status = self.status or status
        else:
            self.headers.clear()

    def on_message_complete(self) -> None:
        if self.status and not self.is_complete:
            self.is_complete = True
            self.keeps_alive = self._parser.should_keep_alive()
            self._parts = len(self.body)


class Connection:
    """Owns its socket.  One exchange at a time: :meth:`send`, :meth:`receive_head`, :meth:`read` to the end.

    Every wait is bounded by ``idle_timeout_s``.  Whoever gives up in the middle closes the connection.
    """

    def __init__(self, sock: socket.socket, idle_timeout_s: float) -> None:
        self._sock = sock
        self._idle_timeout_s = idle_timeout_s
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._incoming = Incoming()
        self.idle_since = 0.0

    @property
    def status(self) -> int:
        return self._incoming.status

    @property
    def headers(self) -> dict[str, str]:
        return self._incoming.headers

    async def send(self, *parts: bytes) -> None:
        """Send a request.  If the peer does not take it, what it answers says more than that it did not.

        Raises:
            NousError: ``provider_unavailable`` if the peer is silent for too long.
        """
        self._incoming = Incoming()
        # What is encrypted is copied in any case, and goes into fewer records as one piece.
        pending = [memoryview(part) for part in ([b"".join(parts)] if self._is_tls else parts) if part]
        while pending:
            try:
                pending = _behind(pending, self._send_some(pending))
            except (BlockingIOError, ssl.SSLWantWriteError):
                await self._wait(anyio.wait_writable, "WriteTimeout")
            except ssl.SSLWantReadError:
                await self._wait(anyio.wait_readable, "WriteTimeout")
            except OSError:
                return

    async def receive_head(self) -> None:
        """Return once ``status`` and ``headers`` are those of the answer.

        Raises:
            NousError: ``provider_unavailable``.
        """
        incoming = self._incoming
        received = 0
        while not incoming.status:
            if incoming.failure is not None or received > MAX_OVERHEAD_BYTES:
                raise incoming.failure or client_fault("RemoteProtocolError")
            received += await self._receive_more()

    async def read(self) -> bytes:
        """Return the body that is here or comes next, as one piece, or ``b""`` at its end.

        Raises:
            NousError: ``provider_unavailable``: the connection broke (``cut``) or was silent for too long (``idle``).
        """
        incoming = self._incoming
        received = 0
        while not incoming.body and not incoming.is_complete:
            if incoming.failure is not None or received > MAX_OVERHEAD_BYTES:
                raise incoming.failure or client_fault("RemoteProtocolError")
            received += await self._receive_more()
        data = incoming.body[0] if len(incoming.body) == 1 else b"".join(incoming.body)
        incoming.body.clear()
        return data

    @property
    def is_reusable(self) -> bool:
        """Whether the answer was read to its end and the peer will take another request."""
        return self._incoming.is_complete and not self._incoming.body and self._incoming.keeps_alive

    def is_alive(self, now_s: float, max_idle_s: float) -> bool:
        """Whether an idle connection can be used: not for too long unused, not closed, and nothing unasked in it."""
        if now_s - self.idle_since > max_idle_s:
            return False
        try:
            self._sock.recv(1) if self._is_tls else self._sock.recv(1, socket.MSG_PEEK)
        except _WANTS_READ:
            return True
        except OSError:
            return False
        return False

    def rest(self) -> None:
        self.idle_since = time.monotonic()

    def close(self) -> None:
        with suppress(OSError):
            self._sock.close()

    def _send_some(self, pending: list[memoryview]) -> int:
        return self._sock.send(pending[0]) if self._is_tls else self._sock.sendmsg(pending[:MAX_PARTS])

    async def _receive_more(self) -> int:
        data = await self._receive()
        if data:
            self._incoming.feed(data)
        else:
            self._incoming.end()
        return len(data)

    async def _receive(self) -> bytes:
        while True:
            try:
                return self._receive_records() if self._is_tls else self._sock.recv(READ_BYTES)
            except _WANTS_READ:
                await self._wait(anyio.wait_readable, "ReadTimeout")
            except ssl.SSLWantWriteError:
                await self._wait(anyio.wait_writable, "ReadTimeout")
            except OSError:
                raise client_fault("ReadError") from None

    def _receive_records(self) -> bytes:
        """Receive all that is there: servers put each event into a TLS record of its own, and a read gives one."""
        data = self._sock.recv(READ_BYTES)
        if not data:
            return data
        records = [data]
        size = len(data)
        with suppress(OSError):
            while size < READ_BYTES and (data := self._sock.recv(READ_BYTES)):
                records.append(data)
                size += len(data)
        return b"".join(records)

    async def _wait(self, wait: Callable[[socket.socket], Awaitable[None]], failure: str) -> None:
        with anyio.move_on_after(self._idle_timeout_s) as scope:
            await wait(self._sock)
        if scope.cancelled_caught:
            raise client_fault(failure)


def _behind(parts: list[memoryview], count: int) -> list[memoryview]:
    """Return what is left of ``parts`` behind their first ``count`` bytes."""
    for position, part in enumerate(parts):
        if count < len(part):
            return [part[count:], *parts[position + 1 :]]
        count -= len(part)
    return []
