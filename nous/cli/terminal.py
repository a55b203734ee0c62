"""Writes text to the terminal.  Text that others made (names, paths, model output) cannot steer it or hide anything.

Every command of the command line writes through this module, except for machine output (JSON, event lines, exports),
which goes to ``sys.stdout.buffer`` as bytes.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from typing import Final

_INVISIBLE: Final = (
    "\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters that reorder the text around them, end a line for some programs, or are not shown at all.

The joiners U+200C and U+200D are not among them: emoji and several scripts are written with them."""

_SURROGATES: Final = "\ud800-\udfff"
_NOT_SHOWN: Final = re.compile(f"[\x00-\x1f\x7f-\x9f{_INVISIBLE}{_SURROGATES}]")
_NOT_SHOWN_IN_TEXT: Final = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_INVISIBLE}{_SURROGATES}]")
_FIRST_RAW_BYTE: Final = 0xDC80
_LAST_RAW_BYTE: Final = 0xDCFF


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


def say(text: str) -> None:
    """Write one line to stdout, escaped.

    Raises:
        OSError: as :meth:`io.BufferedWriter.write`; ``BrokenPipeError`` if the reader has gone.
    """
    write_out(one_line(text) + "\n")


def write_out(text: str) -> None:
    """Write a text to stdout as it is and flush it; what is not ours in it has to be escaped already."""
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()


def note(text: str) -> None:
    """Write one line to stderr, escaped.  A stderr that cannot be written to is no error."""
    with suppress(OSError):
        sys.stderr.buffer.write(one_line(text).encode() + b"\n")
        sys.stderr.buffer.flush()


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if _FIRST_RAW_BYTE <= code <= _LAST_RAW_BYTE:
        return f"\\x{code & 0xFF:02x}"  # a byte of a file name that is not UTF-8
    if found[0] in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[found[0]]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
