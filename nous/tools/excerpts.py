"""The lines of a file that matched, and those around them, as ``grep`` shows them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from nous.tools.text import decode

MAX_LINE_CHARACTERS: Final = 500
"""Of a longer line only the part around the match is shown: it is from a minified file, or data."""
CUT: Final = "[line cut]"

_MAX_CHARACTERS_BEFORE: Final = 300
"""A match that begins within so many characters is shown with the beginning of its line."""
_BYTES_BEFORE: Final = 200
"""So much is shown before a match that begins further on."""
_KEPT_BYTES: Final = 4 * MAX_LINE_CHARACTERS + 1

LineMatch = tuple[int, int]
"""The number of a line, from 1, and the offset of its first match in bytes."""


class _Line(NamedTuple):
    """What is kept of a line: its beginning, the part from ``start`` on, and how long it is in bytes."""

    head: bytes
    part: bytes
    start: int
    length: int


def excerpt(blocks: Iterable[bytes], name: str, matches: Sequence[LineMatch], context: int) -> str:
    """Return ``name:12:text`` for each line of ``matches`` (ascending), ``name-11-text`` for those around.

    ``blocks`` are the text of the file as UTF-8.  ``--`` stands where lines are left out.  What changed since the lines
    were found is shown as it is now.
    """
    shown: list[str] = []
    last_shown = 0
    before: deque[tuple[int, str]] = deque(maxlen=context)
    wanted = deque(matches)
    after = 0
    for number, line in enumerate(_lines(blocks, dict(matches)), 1):
        if wanted and number == wanted[0][0]:
            _, column = wanted.popleft()
            if context and last_shown and number - len(before) > last_shown + 1:
                shown.append("--")
            shown += (f"{name}-{earlier}-{text}" for earlier, text in before)
            before.clear()
            shown.append(f"{name}:{number}:{_shown(line, column)}")
            last_shown, after = number, context
        elif after:
            shown.append(f"{name}-{number}-{_shown(line)}")
            last_shown, after = number, after - 1
        elif context:
            before.append((number, _shown(line)))
        if not wanted and not after:
            break
    return "".join(f"{line}\n" for line in shown)


def _lines(blocks: Iterable[bytes], columns: Mapping[int, int]) -> Iterator[_Line]:
    """Yield what is kept of each line, in bounded memory; ``columns``: where lines matched."""
    number = 1
    line = _Line(b"", b"", _start_of_part(columns.get(1, 0)), 0)
    for block in blocks:
        *ended, rest = block.split(b"\n")
        for piece in ended:
            yield _extended(line, piece)
            number += 1
            line = _Line(b"", b"", _start_of_part(columns.get(number, 0)), 0)
        line = _extended(line, rest)
    if line.length:
        yield line


def _start_of_part(column: int) -> int:
    return 0 if column <= _MAX_CHARACTERS_BEFORE else column - _BYTES_BEFORE


def _extended(line: _Line, piece: bytes) -> _Line:
    head = line.head + piece[: _KEPT_BYTES - len(line.head)]
    part = head
    if line.start:
        end = line.start + _KEPT_BYTES
        part = line.part + piece[max(line.start - line.length, 0) : max(end - line.length, 0)]
    return _Line(head, part, line.start, line.length + len(piece))


def _shown(line: _Line, column: int = 0) -> str:
    text = decode(line.head)
    if len(text) <= MAX_LINE_CHARACTERS:
        return text.removesuffix("\r")
    if column < _KEPT_BYTES and len(decode(line.head[:column])) <= _MAX_CHARACTERS_BEFORE:
        return f"{text[:MAX_LINE_CHARACTERS]} {CUT}"
    text = decode(_from_character(line.part))
    shown = text[:MAX_LINE_CHARACTERS]
    is_whole = shown == text and line.start + len(line.part) >= line.length
    return f"{CUT} {shown.removesuffix(chr(13))}" if is_whole else f"{CUT} {shown} {CUT}"


def _from_character(part: bytes) -> bytes:
    """Return ``part`` from its first whole character on."""
    at = 0
    while at < min(3, len(part)) and part[at] & 0xC0 == 0x80:
        at += 1
    return part[at:]
