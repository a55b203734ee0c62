"""Replaces secrets by placeholders that change nothing else: same number of characters, of bytes, of bytes as JSON.

So a text that came in pieces can be redacted as one and cut into the same pieces again, and a run behaves with it as it
did.  What JSON would escape (quotes, backslashes, control characters) stays, and with it the shape of JSON in a text.
Source: docs/runtime-trace.md, "Export".
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET

from nous.engine.answer import parse_arguments
from nous.engine.output import compact_json
from nous.replay.held import Held, Span, View
from nous.replay.patterns import find_secrets, merge

_LABEL: Final = "[REDACTED]"
_STAND_INS: Final = {1: "*", 2: "\u00b7", 3: "\u2022", 4: "\U0001f512"}
"""A character for every length in UTF-8."""

_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[\"\\/bfnrt]"
)
_SHORT_ESCAPES: Final = {
    '\\"': '"', "\\\\": "\\", "\\/": "/", "\\b": "\b", "\\f": "\f", "\\n": "\n", "\\r": "\r", "\\t": "\t"
}  # fmt: skip
_SINGLE_ESCAPE: Final = len("\\uXXXX")
_STRING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)

T = TypeVar("T")

Placeholder = Callable[[str, Span], str]
"""Makes what stands for a part of a text."""


class Redactor:
    """Redacts texts; the same secret always gets the same placeholder.

    ``held`` are values known to be secrets.  ``count`` says how many places were redacted so far.
    """

    def __init__(self, held: Sequence[str] = ()) -> None:
        self._held = Held(held)
        self.count = 0

    def text(self, text: str) -> str:
        """Return a text without the secrets in it."""
        return self._replace(text, find_secrets(text, self._held), _placeholder)

    def arguments(self, text: str) -> str:
        """Return a tool call's arguments without the secrets in them.

        They are JSON as the model wrote it, or were meant to be.  Secrets are looked for in what the text means and in
        how it is written; what was JSON stays JSON of the same shape.
        """
        # What is not JSON is shown as it is, and must not become JSON: there all of it is ordinary text.
        return self._structured(text, is_json=parse_arguments(text) is not None)

    def output(self, text: str) -> str:
        """Do the same with an answer that is any JSON value, or was meant to be."""
        return self._structured(text, is_json=compact_json(text) is not UNSET)

    def value(self, value: T) -> T:
        """Do the same with a JSON value, keys and numbers in it included."""
        before = msgspec.json.encode(value).decode()
        after = self.output(before)
        redacted: T = value if after == before else msgspec.json.decode(after)
        return redacted

    def data(self, text: str) -> str:
        """Return base64 data without the held values in it.  Other secrets are not looked for: it is no text."""
        return self._replace(text, merge(self._held.find(text)), _placeholder)

    def _structured(self, text: str, *, is_json: bool) -> str:
        view = View(text, _ESCAPE, _meaning)
        spans = [view.raw_span(span) for span in find_secrets(view.text, self._held)]
        if spans:
            text = self._replace(text, spans, _JsonPlaceholder(text, is_json=is_json))
        spans = find_secrets(text, self._held)
        return self._replace(text, spans, _JsonPlaceholder(text, is_json=is_json)) if spans else text

    def pieces(self, pieces: Sequence[str]) -> list[str]:
        """Redact a text that came in pieces, wherever they were cut; return pieces of the same sizes."""
        return _cut_like(self.text("".join(pieces)), pieces)

    def argument_pieces(self, pieces: Sequence[str]) -> list[str]:
        """Do the same for a tool call's arguments."""
        return _cut_like(self.arguments("".join(pieces)), pieces)

    def output_pieces(self, pieces: Sequence[str]) -> list[str]:
        """Do the same for an answer that has to be JSON."""
        return _cut_like(self.output("".join(pieces)), pieces)

    def _replace(self, text: str, spans: Sequence[Span], placeholder: Placeholder) -> str:
        parts: list[str] = []
        at = 0
        for span in spans:
            parts += [text[at : span.start], placeholder(text, span)]
            at = span.end
        self.count += len(spans)
        return "".join([*parts, text[at:]])


def _cut_like(text: str, pieces: Sequence[str]) -> list[str]:
    ends = list(accumulate(map(len, pieces)))
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _placeholder(text: str, span: Span) -> str:
    return _hide(list(text[span.start : span.end]))


def _hide(characters: Sequence[str]) -> str:
    """Return what stands for these: a label if there is room for it, and stars."""
    hidden = [_width(c) == 1 for c in characters]
    count = sum(hidden)
    label = _LABEL[:-1] + "*" * (count - len(_LABEL)) + _LABEL[-1] if count >= len(_LABEL) else "*" * count
    letters = iter(label)
    return "".join(next(letters) if plain else _stand_in(c) for c, plain in zip(characters, hidden, strict=True))


def _width(character: str) -> int:
    """Return how many bytes a character takes, 0 if JSON escapes it."""
    if character < " " or character in '"\\':
        return 0
    return 1 if character < "\x80" else len(character.encode("utf-8", "surrogatepass"))


def _stand_in(character: str) -> str:
    return _STAND_INS.get(_width(character), character)


class _JsonPlaceholder:
    """Makes placeholders within a text that is JSON, or was meant to be."""

    def __init__(self, text: str, *, is_json: bool) -> None:
        self._escapes = _Ranges(_ESCAPE.finditer(text))
        self._strings = _Ranges(_STRING.finditer(text)) if is_json else None

    def __call__(self, text: str, span: Span) -> str:
        units = list(self._units(text, span))
        plain = iter(_hide([unit for unit, kind in units if kind == "plain"]))
        return "".join(next(plain) if kind == "plain" else _hide_unit(unit, kind) for unit, kind in units)

    def _units(self, text: str, span: Span) -> Iterator[tuple[str, str]]:
        """Yield the characters of a span, each escape sequence whole, and what kind each is."""
        at = span.start
        while at < span.end:
            escape = self._escapes.around(at)
            if escape is None:
                is_inside = self._strings is None or self._strings.around(at) is not None
                yield text[at], "plain" if is_inside else "structure"
                at += 1
            else:
                is_whole = escape.start == at and escape.end <= span.end
                end = min(escape.end, span.end)
                yield text[at:end], "escape" if is_whole else "part"
                at = end


class _Ranges:
    """Parts of a text in order: finds the one that a place lies in."""

    def __init__(self, matches: Iterable[re.Match[str]]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for match in matches:
            self._starts.append(match.start())
            self._ends.append(match.end())

    def around(self, at: int) -> Span | None:
        index = bisect_right(self._starts, at) - 1
        return Span(self._starts[index], self._ends[index]) if index >= 0 and at < self._ends[index] else None


def _hide_unit(unit: str, kind: str) -> str:
    if kind == "structure":
        # Numbers outside of strings stay numbers.
        return "1" if unit in "0123456789" else unit
    if kind == "escape" and unit.startswith("\\u"):
        character = _meaning(unit)
        return unit if _width(character) == 0 or len(character) > 1 else _as_escape(_stand_in(character))
    return unit


def _as_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _meaning(escape: str) -> str:
    """Return the character an escape sequence stands for; half a pair stands for itself."""
    short = _SHORT_ESCAPES.get(escape)
    if short is not None:
        return short
    if len(escape) > _SINGLE_ESCAPE:
        return bytes.fromhex(escape.replace("\\u", "")).decode("utf-16-be")
    character = chr(int(escape[2:], 16))
    return escape if "\ud800" <= character <= "\udfff" else character
