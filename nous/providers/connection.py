"""One HTTP/1.1 connection over a socket: sends a request, receives its answer, and can do so again.

The parser is llhttp (through httptools): a model's answer comes as thousands of small HTTP chunks, and a parser in
Python would cost more than everything that happens to them afterwards.

No peer can keep the event loop from its other work: after every ``YIELD_BYTES`` that arrived without a wait, reading
lets other tasks run, whatever the bytes are.
"""

from __future__ import annotations

import math
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from nous.errors import NousError
from nous.providers.faults import client_fault
from nous.providers.patience import Patience

READ_BYTES: Final = 64 * 1024
"""How much is read at a time, and returned as one piece."""

YIELD_BYTES: Final = 64 * 1024

READ_COST_BYTES: Final = 256
"""What a read counts in addition to its bytes: small ones cost time too."""

MAX_OVERHEAD_BYTES: Final = 128 * 1024
"""How much a server may send without a byte of body in it: heads, trailers, extensions of chunks."""

MAX_PARTS: Final = 1024
"""How many pieces the system takes at once: IOV_MAX of Linux and macOS."""

_WANTS_READ: Final = (BlockingIOError, ssl.SSLWantReadError)


_INTERIM: Final = re.compile(rb"\A(?:HTTP/1\.1 1[0-9][0-9][^\n]*\r\n(?:[^\r\n]+\r\n)*\r\n)+")
_UNFINISHED_LENGTH: Final = re.compile(rb"\r\ncontent-length:[0-9, \t]{0,64}\r?\Z", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"\r\ncontent-length:([0-9, \t]*)(?=\r\n)", re.IGNORECASE)


class Incoming:
    """One answer as far as it was parsed.

    ``status`` is 0 until the head is complete.  ``failure`` counts only after the body that came before it.  The
    length of the body follows RFC 9112, section 6.3: an answer with both a length and a transfer coding is chunked, a
    length that is repeated counts once, and the connection of either is not used again.
    """

    def __init__(self) -> None:
        self.failure: NousError | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_complete = False
        self.keeps_alive = False
        self.is_begun = False
        self._parts = 0
        self.body: list[bytes] = []
        # The parser calls this for every chunk: a method of a list costs less than one of ours.
        self.on_body = self.body.append
        self._parser = self._make_parser()
        self._head = bytearray()
        self._has_repeated_length = False

    def _make_parser(self) -> Any:
        parser = HttpResponseParser(self)
        parser.set_dangerous_leniencies(lenient_chunked_length=True)
        return parser

    @property
    def is_framed(self) -> bool:
        """Whether the answer itself says where it ends; otherwise it ends with the connection."""
        return "content-length" in self.headers or "transfer-encoding" in self.headers

    def feed(self, data: bytes) -> None:
        """Parse ``data``.  Bytes after the answer's end only make the connection unusable for another request."""
        self.is_begun = True
        if not self.status:
            self._head += data
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            if self._feed_with_one_length():
                return
            self.keeps_alive = False
            if not self.is_complete:
                self.failure = client_fault("RemoteProtocolError")
        if self.is_complete:
            del self.body[self._parts :]

    def _feed_with_one_length(self) -> bool:
        """Parse a head anew that repeats its length, with the length standing there once.  False: it does not.

        The parser fails at the second length, and takes nothing after that.  Where that line has not come whole, this
        waits for the rest.
        """
        if self.status:
            return False
        head = _INTERIM.sub(b"", self._head)
        if _UNFINISHED_LENGTH.search(head):
            return True
        merged = merge_lengths(head)
        if merged is None:
            return False
        self._has_repeated_length = True
        self._head.clear()
        self.headers.clear()
        self._parser = self._make_parser()
        self.feed(merged)
        return True

    def end(self) -> None:
        """The peer has closed; a failure if that is not where the answer ends."""
        if self.status and not self.is_framed:
            self.is_complete = True
        else:
            self.failure = client_fault("RemoteProtocolError")

    def _is_framed_oddly(self) -> bool:
        """Whether peers may disagree about where the answer ends."""
        if self._has_repeated_length:
            return True
        coding = self.headers.get("transfer-encoding")
        return coding is not None and (coding.strip().lower() != "chunked" or "content-length" in self.headers)

    # -- called by the parser

    def on_message_begin(self) -> None:
        """Note a second answer that nobody asked for.  Called by the parser."""
        if self.is_complete:
            self.keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header.  Called by the parser."""
        if self.status:
            return  # a trailer
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Take the status, and decide how the body is framed.  Called by the parser."""
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            self.headers.clear()
        elif not _is_readable(self.headers.get("transfer-encoding", "chunked")):
            self.failure = client_fault("DecodingError")
        else:
            self.status = self.status or status
            self._head.clear()

    def on_message_complete(self) -> None:
        """Note the answer's end.  Called by the parser."""
        if self.status and not self.is_complete:
            self.is_complete = True
            self.keeps_alive = self._parser.should_keep_alive() and not self._is_framed_oddly()
            self._parts = len(self.body)


def _is_readable(transfer_encoding: str) -> bool:
    """Return whether the parser undoes a transfer coding: chunked, also where a proxy has named it twice."""
    return all(coding.strip().lower() in ("chunked", "identity") for coding in transfer_encoding.split(","))


def merge_lengths(head: bytes) -> bytes | None:
    """Return a head whose repeated, identical lengths were made one; None if there are none, or others.

    They may stand in several lines or in one list.  What follows ``head``'s last length stays as it is.
    """
    end = head.find(b"\r\n\r\n")
    fields = [*_LENGTH.finditer(head, 0, len(head) if end < 0 else end + 2)]
    values = [value.strip() for field in fields for value in field[1].split(b",")]
    if len(values) < 2 or len(set(values)) > 1 or not values[0].isdigit():
        return None
    merged = head[: fields[0].start()] + b"\r\nContent-Length: %b" % values[0]
    for field, following in zip(fields, [*fields[1:], None], strict=True):
        merged += head[field.end() : None if following is None else following.start()]
    return merged


class HttpConnection:
    """Owns its socket.  One exchange at a time: :meth:`send`, :meth:`receive_head`, :meth:`read` to the end.

    Every wait is bounded by ``idle_timeout_s``, and all waits of an exchange up to the answer's head together by
    ``stall_timeout_s``, both of the time in which this process runs (:mod:`nous.providers.patience`).  What has arrived
    is read once more before a wait fails.  A caller that gives up during an exchange closes the connection.

    ``waited_s`` is how long the present exchange has waited so far.
    """

    def __init__(self, sock: socket.socket, idle_timeout_s: float, stall_timeout_s: float = math.inf) -> None:
        self._sock = sock
        self._idle_timeout_s = idle_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self.waited_s = 0.0
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._incoming = Incoming()
        self._is_cut_short = False
        self._unyielded_bytes = 0
        self.idle_since = 0.0

    @property
    def status(self) -> int:
        """The status code, 0 before it has come."""
        return self._incoming.status

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer, names in lower case."""
        return self._incoming.headers

    @property
    def has_answer(self) -> bool:
        """Whether any byte came since the last request."""
        return self._incoming.is_begun

    async def send(self, *parts: bytes) -> None:
        """Send a request, as far as the peer takes it.

        The answer is read meanwhile, because a peer that has answered already (413, for instance) may take no more.  A
        peer that closes ends the sending too; what it answered is for :meth:`receive_head`.

        Raises:
            NousError: ``provider_unavailable`` if the peer neither takes nor sends anything for too long.
        """
        self._incoming = Incoming()
        self._is_cut_short = True
        self.waited_s = 0.0
        # What is encrypted is copied in any case, and goes into fewer records as one piece.
        pending = [memoryview(part) for part in ([b"".join(parts)] if self._is_tls else parts) if part]
        while pending:
            try:
                pending = _behind(pending, self._send_some(pending))
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if await self._is_answered_early():
                    return
                if self.waited_s > self._stall_timeout_s:
                    raise client_fault("WriteTimeout") from None
            except OSError:
                return
        self._is_cut_short = False

    async def _is_answered_early(self) -> bool:
        """Wait until more can be sent; return whether the whole head of an answer, or the end, came instead."""
        patience = Patience(self._idle_timeout_s)
        while await patience.wait(self._wait_for_either):
            self.waited_s += patience.take_used_s()
            try:
                data = self._receive_records() if self._is_tls else self._sock.recv(READ_BYTES)
            except _WANTS_READ:
                return False
            except (ssl.SSLWantWriteError, OSError):
                return False
            if not data:
                self._incoming.end()
                return True
            self._incoming.feed(data)
            if self.status or self._incoming.failure is not None:
                return True
        raise client_fault("WriteTimeout")

    async def _wait_for_either(self) -> None:
        """Return once the socket can be read or written."""
        async with anyio.create_task_group() as tasks:

            async def wait(function: Callable[[socket.socket], Awaitable[None]]) -> None:
                await function(self._sock)
                tasks.cancel_scope.cancel()

            tasks.start_soon(wait, anyio.wait_readable)
            tasks.start_soon(wait, anyio.wait_writable)

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
            if self.waited_s > self._stall_timeout_s:
                raise client_fault("ReadTimeout")
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
        incoming = self._incoming
        return incoming.is_complete and not incoming.body and incoming.keeps_alive and not self._is_cut_short

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
        """Note that the connection is idle from now on."""
        self.idle_since = time.monotonic()

    def close(self) -> None:
        """Close the socket."""
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
        size = len(data)
        self._unyielded_bytes = unyielded_bytes = self._unyielded_bytes + size + READ_COST_BYTES
        if unyielded_bytes >= YIELD_BYTES:
            self._unyielded_bytes = 0
            await checkpoint()
        return size

    async def _receive(self) -> bytes:
        patience: Patience | None = None
        is_over = False
        while True:
            try:
                return self._receive_records() if self._is_tls else self._sock.recv(READ_BYTES)
            except _WANTS_READ:
                wait = anyio.wait_readable
            except ssl.SSLWantWriteError:
                wait = anyio.wait_writable
            except OSError:
                raise client_fault("ReadError") from None
            if is_over:
                raise client_fault("ReadTimeout")
            patience = patience or Patience(self._idle_timeout_s)
            is_over = not await patience.wait(wait, self._sock)
            self.waited_s += patience.take_used_s()
            self._unyielded_bytes = 0

    def _receive_records(self) -> bytes:
        """Receive all that has arrived: servers put each event into a TLS record of its own, and a read gives one."""
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


def _behind(parts: list[memoryview], count: int) -> list[memoryview]:
    """Return what is left of ``parts`` behind their first ``count`` bytes."""
    for position, part in enumerate(parts):
        if count < len(part):
            return [part[count:], *parts[position + 1 :]]
        count -= len(part)
    return []
