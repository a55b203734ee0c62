"""Finds values known to be secret in a text: as they are, encoded, or broken over lines.

Looked for are each value itself, its JSON, base64 (also inside of longer base64, and URL-safe), hexadecimal and
percent-encoded forms, all of them also with line ends in between.  Time is linear in the text, with one search per
form.  Source: docs/runtime-trace.md, "Export".
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple
from urllib.parse import quote, quote_plus

import msgspec

MIN_HELD_CHARACTERS: Final = 6
"""A shorter value held by the daemon is no secret: hiding it would shred ordinary words."""

_BASE64: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=")
_EDGE_CHARACTERS: Final = 4
"""So many characters beside a base64 form hold bits of the value at most."""

_LINE_END: Final = re.compile(r"[ \t]{0,64}+(?:\\?\r?\n|\\r|\\n)[ \t]{0,64}+")
_PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")


class Span(NamedTuple):
    """A part of a text, in characters."""

    start: int
    end: int


class Held:
    """Finds values that are secrets.  Values of fewer than :data:`MIN_HELD_CHARACTERS` characters are left out."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        kept = [value for value in values if len(value) >= MIN_HELD_CHARACTERS]
        self._whole = _Forms(kept, lambda form: form)
        self._joined = _Forms(kept, lambda form: _LINE_END.sub("", form))

    def find(self, text: str) -> Iterator[Span]:
        """Yield where a value stands, in no order; parts may overlap."""
        yield from self._whole.find(text)
        view = View(text, _LINE_END, lambda _: "")
        if view.text != text:
            yield from map(view.raw_span, self._joined.find(view.text))


class _Forms:
    """How values may stand in a text."""

    def __init__(self, values: list[str], shape: Callable[[str], str]) -> None:
        self._values = _distinct(map(shape, values))
        self._plain = _distinct(shape(form) for value in values for form in _plain_forms(value))
        self._base64 = _distinct(shape(form) for value in values for form in _base64_forms(value))

    def find(self, text: str) -> Iterator[Span]:
        for form in self._plain:
            yield from _occurrences(text, form)
        for form in self._base64:
            for span in _occurrences(text, form):
                yield _with_edges(text, span)
        if self._values and "%" in text:
            view = View(text, _PERCENT, lambda escape: chr(int(escape[1:], 16)))
            for form in self._values:
                yield from map(view.raw_span, _occurrences(view.text, form))


class View:
    """A text in which some parts are replaced by what they mean, and the way back to the text."""

    def __init__(self, text: str, pattern: re.Pattern[str], meaning: Callable[[str], str]) -> None:
        self._starts = [0]
        self._raw_starts = [0]
        parts: list[str] = []
        at = raw = 0
        for match in pattern.finditer(text):
            start, end = match.span()
            character = meaning(match[0])
            at += start - raw
            parts += [text[raw:start], character]
            self._starts += [at, at + len(character)]
            self._raw_starts += [start, end]
            at += len(character)
            raw = end
        self.text = "".join([*parts, text[raw:]]) if parts else text

    def raw_span(self, span: Span) -> Span:
        """Return the part of the raw text that a part of :attr:`text` comes from; the part is not empty."""
        index = bisect_right(self._starts, span.start) - 1
        return Span(self._raw_starts[index] + span.start - self._starts[index], self._raw_end(span.end))

    def _raw_end(self, at: int) -> int:
        index = bisect_right(self._starts, at - 1) - 1
        # Of these ranges every other one was replaced: it counts as a whole.
        return self._raw_starts[index + 1] if index % 2 else self._raw_starts[index] + at - self._starts[index]


def _plain_forms(value: str) -> Iterator[str]:
    yield value
    yield msgspec.json.encode(value).decode()[1:-1]
    data = value.encode()
    yield data.hex()
    yield data.hex().upper()
    yield from (quote(value, safe=""), quote(value), quote_plus(value))


def _base64_forms(value: str) -> Iterator[str]:
    """Yield the base64 characters that a value alone decides, wherever in a group of three bytes it begins."""
    data = value.encode()
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + data).decode()
        # Of its first characters the bytes before have a say, of its last one the bytes behind.
        form = text[(0, 2, 3)[shift] : (shift + len(data)) * 8 // 6]
        if len(form) >= MIN_HELD_CHARACTERS:
            yield form
            yield form.replace("+", "-").replace("/", "_")


def _distinct(forms: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(form for form in forms if len(form) >= MIN_HELD_CHARACTERS))


def _occurrences(text: str, form: str) -> Iterator[Span]:
    at = text.find(form)
    while at >= 0:
        yield Span(at, at + len(form))
        at = text.find(form, at + 1)


def _with_edges(text: str, span: Span) -> Span:
    start, end = span
    while start > max(0, span.start - _EDGE_CHARACTERS) and text[start - 1] in _BASE64:
        start -= 1
    while end < min(len(text), span.end + _EDGE_CHARACTERS) and text[end] in _BASE64:
        end += 1
    return Span(start, end)
