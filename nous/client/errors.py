"""What can go wrong for a client, each a :class:`NousError` so that a command line can report it as it is.

NousError
 +-- CommandError            the daemon refused a command, or the run behind it failed
 +-- DaemonGoneError         the daemon ended, or closed the connection
 |    +-- StartRefusedError    it refused to start, and said why
 +-- EventsUnreadError       an answer cannot arrive: it stands behind events that nobody takes
 +-- NotTheProtocolError     what came is not a line of the protocol
 +-- ClientClosedError       the client was closed here
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from nous.errors import CATEGORIES, CODES, Category, CodeInfo, NousError

MAX_KEPT_LINE_BYTES: Final = 64 * 1024
"""More than the object of a refused start takes, whatever it quotes."""


class WireError(Struct, frozen=True):
    """The ``error`` object of a response, as a peer of any v1 version may write it."""

    code: str = "internal_error"
    message: str = ""
    category: str = "internal_failure"
    cause: str | None = None
    hint: str | None = None
    retry_after_ms: int | None = None


class CommandError(NousError):
    """The daemon's answer was an error.  ``payload`` is the answer's payload (a timeout's holds ``run_id``).

    A code this version does not know is kept as it came, with the message and the category it came with.
    """

    def __init__(self, error: WireError, payload: dict[str, object]) -> None:
        code = error.code if error.code in CODES else "internal_error"
        super().__init__(code, error.cause, hint=error.hint, retry_after_ms=error.retry_after_ms, data=payload)
        if code != error.code:
            self.code = error.code
            # The message of a newer daemon holds the cause already.
            sentence = error.message.removesuffix(f" ({error.cause})")
            self.info = CodeInfo(_known_category(error.category), sentence)

    @property
    def payload(self) -> dict[str, object]:
        """The fields of the refused answer."""
        return self.data


class DaemonGoneError(NousError):
    """The daemon is not there any more.

    ``returncode`` is its exit code (negative: the signal), None on a socket; ``stderr`` the end of what it wrote there.
    """

    def __init__(self, what: str, *, returncode: int | None = None, stderr: bytes = b"") -> None:
        super().__init__("io_failure", f"{what}: {_tail(stderr)}" if stderr.strip() else what)
        self.hint = None
        self.returncode = returncode
        self.stderr = stderr


class Refusal(Struct, frozen=True):
    """The object in which ``nous serve --json`` reports why it did not start (docs/errors.md)."""

    error: str
    error_code: str
    error_category: str
    cause: str | None = None
    hint: str | None = None


_decode_refusal = msgspec.json.Decoder(Refusal).decode


class StartRefusedError(DaemonGoneError):
    """The daemon refused to start.  ``code``, ``message``, ``cause`` and ``hint`` are the daemon's own."""

    def __init__(self, refusal: Refusal, *, returncode: int | None, stderr: bytes) -> None:
        super().__init__("", returncode=returncode, stderr=stderr)
        self.code = refusal.error_code
        self.info = CODES.get(self.code) or CodeInfo(_known_category(refusal.error_category), refusal.error)
        self.cause = refusal.cause if self.code in CODES else None
        self.hint = refusal.hint


def read_refusal(line: bytes) -> Refusal | None:
    """Return what a line says if it is the object of a refused start."""
    try:
        return _decode_refusal(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class EventsUnreadError(NousError):
    """Events fill the client's memory up to its bound, nobody takes them, and the answer comes after them."""

    def __init__(self, queued_bytes: int) -> None:
        super().__init__(
            "overloaded",
            f"{queued_bytes} bytes of events are unread, and the answer stands behind them",
            hint="Iterate events(), or open the client with keep_events=False.",
        )


class NotTheProtocolError(NousError):
    """The peer does not speak the protocol; ``line`` is the beginning of what it wrote instead."""

    def __init__(self, line: bytes) -> None:
        self.line = line[:MAX_KEPT_LINE_BYTES]
        super().__init__("internal_error", f"not a line of the protocol: {line[:200]!r}", hint="Is this nous serve?")


class ClientClosedError(NousError):
    """The client was closed while something still waited for the daemon."""

    def __init__(self) -> None:
        super().__init__("internal_error", "the client is closed", hint="")


def _known_category(name: str) -> Category:
    return next((category for category in CATEGORIES if category == name), "internal_failure")


def _tail(stderr: bytes, limit: int = 1024) -> str:
    return stderr.strip()[-limit:].decode("utf-8", "replace")
