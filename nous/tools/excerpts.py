"""The lines of a file that matched, and those around them, as ``grep`` shows them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from nous.tools.text import decode

MAX_LINE_CHARACTERS: Final = 500
"""Of a longer line only the beginning is shown: it is from a minified file, or data."""
_KEPT_BYTES: Final = 4 * MAX_LINE_CHARACTERS + 1
_READ_BYTES: Final = 256 * 1024


def excerpt(path: str, name: str, numbers: Sequence[int], context: int) -> str:
    """Return ``name:12:text`` for each line of ``numbers`` (ascending, from 1), ``name-11-text`` for those around.

    ``--`` stands where lines are left out.  What changed since the lines were found is shown as it is now.
    """
    shown: list[str] = []
    last_shown = 0
    before: deque[tuple[int, str]] = deque(maxlen=context)
    wanted = deque(numbers)
    after = 0
    for number, line in enumerate(_beginnings(path), 1):
        if wanted and number == wanted[0]:
            wanted.popleft()
            if context and last_shown and number - len(before) > last_shown + 1:
                shown.append("--")
            shown += (f"{name}-{earlier}-{text}" for earlier, text in before)
            before.clear()
            shown.append(f"{name}:{number}:{line}")
            last_shown, after = number, context
        elif after:
            shown.append(f"{name}-{number}-{line}")
            last_shown, after = number, after - 1
        else:
            before.append((number, line))
        if not wanted and not after:
            break
    return "".join(f"{line}\n" for line in shown)


def _beginnings(path: str) -> Iterator[str]:
    """Yield the beginning of each line, in bounded memory."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        kept = b""
        is_open = False
        while block := os.read(fd, _READ_BYTES):
            *lines, rest = block.split(b"\n")
            for line in lines:
                yield _shown(kept + line[:_KEPT_BYTES])
                kept = b""
            kept = (kept + rest[:_KEPT_BYTES])[:_KEPT_BYTES]
            is_open = bool(kept)
        if is_open:
            yield _shown(kept)
    except OSError:
        return
    finally:
        os.close(fd)


def _shown(line: bytes) -> str:
    text = decode(line[:_KEPT_BYTES])
    if len(text) > MAX_LINE_CHARACTERS:
        return f"{text[:MAX_LINE_CHARACTERS]} [line cut]"
    return text.removesuffix("\r")
