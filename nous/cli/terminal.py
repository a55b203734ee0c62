"""The standard output and error of the command line.  Text that others made cannot steer a terminal or hide anything.

Every command writes through this module: for people with :func:`say`, :func:`note` and :class:`Ink`, which escape, for
programs with :func:`write_bytes`, which does not.  tests/unit/cli/test_terminal.py holds the package to that.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

_INVISIBLE: Final = (
    "\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters that reorder the text around them, end a line for some programs, or are not shown at all.

The joiners U+200C and U+200D are not among them: emoji and several scripts are written with them."""

_SURROGATES: Final = "\ud800-\udfff"
_NOT_SHOWN: Final = re.compile(f"[\x00-\x1f\x7f-\x9f{_INVISIBLE}{_SURROGATES}]")
_NOT_SHOWN_IN_TEXT: Final = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_INVISIBLE}{_SURROGATES}]")
_SHORT_ESCAPES: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_RAW_BYTES: Final = range(0xDC80, 0xDD00)
"""How Python writes the bytes of a file name that is not UTF-8."""

Style = Literal["plain", "bold", "dim", "red", "green", "yellow", "cyan", "bold red"]
_CODES: Final[dict[Style, str]] = {
    "plain": "0",
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
    "bold red": "31;1",
}


class OutputClosedError(Exception):
    """The reader of standard output has gone: the command ends without a word (``nous trace list | head -1``)."""


def one_line(text: str) -> str:
    """Return a text as it may stand within a line: line ends become spaces, what a terminal obeys or hides is escaped.

    Controls, bidirectional overrides, invisible characters and lone surrogates become ``\\x1b``, ``\\u202e``.
    """
    return _NOT_SHOWN.sub(_escape, text.replace("\r\n", " ").replace("\n", " "))


def exact_line(text: str) -> str:
    """Return a text for a line in which every character counts (a command to be trusted): line ends are escaped too."""
    return _NOT_SHOWN.sub(_escape, text)


def many_lines(text: str) -> str:
    """Return a text of several lines: LF and tab stay, CR is left out, the rest is escaped as in :func:`one_line`."""
    return _NOT_SHOWN_IN_TEXT.sub(_escape, text.replace("\r", ""))


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def say(line: str = "") -> None:
    """Write one line to stdout, escaped.

    Raises:
        OutputClosedError, OSError: it cannot be written.
    """
    write_bytes(one_line(line).encode() + b"\n")


def say_text(text: str) -> None:
    """Write a text of several lines to stdout, escaped, and end its last line.  Raises as :func:`say`."""
    write_bytes(many_lines(text).encode() + b"\n")


def say_value(value: str) -> None:
    """Write a value that scripts read, a path or a setting: escaped on a terminal, else as it is."""
    if is_terminal():
        say_text(value)
    else:
        # Names of files that are not UTF-8 get their own bytes back.
        write_bytes(value.encode("utf-8", "surrogateescape") + b"\n")


def note(line: str) -> None:
    """Write one line to stderr, escaped.  A stderr that cannot be written to is no error."""
    write_stderr(one_line(line).encode() + b"\n")


def write_bytes(data: bytes | memoryview) -> None:
    """Write machine output to stdout as it is and flush it.

    Raises:
        OutputClosedError: nobody reads it any more.
        OSError: it cannot be written for another reason, such as a full disk.
    """
    with _output():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def write_stderr(data: bytes) -> None:
    """Write bytes that are already escaped, or are a program's own, to stderr; failures are ignored."""
    with suppress(OSError):
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()


class Ink:
    """Writes lines to stdout, in colour if it is a terminal that wants them (no NO_COLOR, TERM not ``dumb``).

    Lines are escaped.  Colours come from styles alone.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._colours = is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def line(self, *parts: str | tuple[str, Style]) -> None:
        """Add a line made of texts, each plain or with a style."""
        texts = (self._painted(*part) if isinstance(part, tuple) else one_line(part) for part in parts)
        self._lines.append("".join(texts).rstrip() + "\n")
        if len(self._lines) >= _LINES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write the lines added so far.  Raises as :func:`write_bytes`."""
        lines, self._lines = self._lines, []
        write_bytes("".join(lines).encode())

    def _painted(self, text: str, style: Style) -> str:
        text = one_line(text)
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self._colours and text and style != "plain" else text


_LINES_AT_ONCE: Final = 256


@contextmanager
def _output() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # What is still buffered cannot be written; the interpreter must not try again at its end.
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, 1)
        os.close(null)
        if isinstance(error, BrokenPipeError):
            raise OutputClosedError from None
        raise


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if code in _RAW_BYTES or code <= 0xFF:
        return f"\\x{code & 0xFF:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
