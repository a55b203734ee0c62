"""Server-sent events from bytes: whatever a network read delivered goes in, whole events' data comes out.

Pure.  Lines end with LF, CR or CRLF and with nothing else.  Source: WHATWG HTML, "Server-sent events", parsing an
event stream; ``event``, ``id`` and ``retry`` are understood and not reported, because every vendor nous speaks
to repeats in the data what matters.  An error outside of ``data`` is reported as if it stood in it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nous.errors import NousError

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""An event longer than this is refused: it bounds what a server can make nous hold."""

_BOM: Final = b"\xef\xbb\xbf"


class SseParser:
    """Any chunking of the same bytes gives the same events, in the same order (property-tested)."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._data: list[bytes] = []
        self._partial: list[bytes] = []
        self._event_bytes = 0
        self._after_cr = False
        self._begun = False
        self._is_bare = False
        self._failed = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events that ``chunk`` completed; events without data are left out.

        An event that the stream does not end with an empty line is left to :meth:`finish`.

        Raises:
            NousError: ``provider_error`` if an event is longer than the limit, once all before it were returned.
        """
        events: list[bytes] = []
        if chunk and not self._failed:
            self._read_lines(self._unify_newlines(chunk), events)
        if self._failed and not events:
            raise NousError("provider_error", f"an event of the stream is longer than {self._limit} bytes")
        return events

    def finish(self) -> bytes | None:
        """The stream has ended: return the data of an event that lacks its empty line, or None if there is none.

        It may be half an event: also ``b""``, where less has come than the name of its first field.
        """
        line = self._take_partial()
        if self._failed:
            return None
        if line and b"data:".startswith(line):
            return b""
        if line:
            self._take_line(line)
        events: list[bytes] = []
        is_begun = bool(self._data)
        self._dispatch(events)
        return events[0] if events else b"" if is_begun else None

    def _unify_newlines(self, chunk: bytes) -> bytes:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
            if not chunk:
                return chunk
        self._after_cr = chunk.endswith(b"\r")
        if b"\r" in chunk:
            # Twice as fast as replacing the pairs.
            return b"\n".join(chunk.split(b"\r\n")).replace(b"\r", b"\n")
        return chunk

    def _read_lines(self, chunk: bytes, events: list[bytes]) -> None:
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._partial:
            lines[0] = self._take_partial() + lines[0]
        for line in lines:
            if not line:
                self._dispatch(events)
            elif not self._take_line(line):
                return
        if rest:
            self._partial.append(rest)
            self._grow(len(rest))

    def _take_partial(self) -> bytes:
        line = b"".join(self._partial)
        self._partial.clear()
        self._event_bytes -= len(line)
        return line

    def _take_line(self, line: bytes) -> bool:
        if not self._grow(len(line)):
            return False
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b" ", 5) else line[5:])
        elif not line.startswith(b"event:"):
            self._take_odd_line(line)
        return True

    def _take_odd_line(self, line: bytes) -> None:
        """Take what some servers send outside of ``data``: errors as a field of their own, or JSON without a field.

        Sources: llama.cpp before October 2025 (``error: {...}``); Lemonade (the bare object).
        """
        if line == b"data":
            self._data.append(b"")
        elif line.startswith(b"error:"):
            self._data.append(b'{"error":%b}' % _as_json(line[6:].strip()))
        elif self._is_bare or (line.startswith(b"{") and not self._data):
            self._is_bare = True
            self._data.append(line)

    def _grow(self, size: int) -> bool:
        self._event_bytes += size
        self._failed = self._event_bytes > self._limit
        return not self._failed

    def _dispatch(self, events: list[bytes]) -> None:
        self._begun = True
        self._event_bytes = 0
        if not self._data:
            return
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        self._is_bare = False
        if data:
            events.append(data)


def _as_json(value: bytes) -> bytes:
    """Return ``value`` if it is JSON, else as a JSON string."""
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return msgspec.json.encode(value.decode("utf-8", "replace"))
    return value
