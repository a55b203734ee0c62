"""Text that can go out: no lone surrogates, no piece longer than a line may be."""

from __future__ import annotations

from collections.abc import Iterator


def clean(text: str) -> str:
    """Return ``text`` with every lone surrogate replaced by U+FFFD; pairs of halves become their character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def split_text(text: str, max_bytes: int) -> Iterator[str]:
    """Yield ``text`` in pieces of at most ``max_bytes`` of UTF-8 each (at least one character)."""
    if len(text) * 4 <= max_bytes:
        if text:
            yield text
        return
    data = text.encode()
    start = 0
    while start < len(data):
        end = min(start + max(max_bytes, 4), len(data))
        # Step back over continuation bytes, so that no character is cut.
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        yield data[start:end].decode()
        start = end
