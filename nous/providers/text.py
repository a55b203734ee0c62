"""Text as it may leave a provider: no lone surrogate, no piece longer than an event line can carry.  Pure.

Source: protocol v1, section 1 (outgoing JSON is strict; no outgoing line exceeds max_event_bytes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from nous.ports.model import MAX_DELTA_BYTES

MAX_PIECE_CHARS: Final = MAX_DELTA_BYTES // 6
"""No character takes more than six bytes of JSON (a control character: ``\\u0001``), nor more than four of UTF-8."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class TextChannel:
    """One run of text that arrives in pieces: an answer, a thought, a tool call's arguments.

    A high surrogate at the end of a piece waits for the next one: some servers cut a pair in two.  Every other
    lone surrogate becomes U+FFFD.  The joined output does not depend on where the input was cut.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> list[str]:
        """Return ``text`` in pieces that may leave: none, one, or several where it is long."""
        if self._held or _SURROGATE.search(text):
            text = self._join_pairs(text)
        if len(text) <= MAX_PIECE_CHARS:
            return [text] if text else []
        return [text[start : start + MAX_PIECE_CHARS] for start in range(0, len(text), MAX_PIECE_CHARS)]

    def flush(self) -> list[str]:
        """Return what a half pair at the very end has become."""
        held, self._held = self._held, ""
        return ["\ufffd"] if held else []

    def _join_pairs(self, text: str) -> str:
        text, self._held = self._held + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return clean(text)


def clean(text: str) -> str:
    """Return whole text as it may leave: each lone surrogate has become U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clean_pieces(texts: Iterable[str]) -> list[str]:
    """Return whole text that comes in pieces as pieces that may leave."""
    channel = TextChannel()
    return [piece for text in texts for piece in channel.feed(text)] + channel.flush()
