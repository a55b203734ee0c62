"""What looks like a secret in a text, and where: known forms of keys and tokens, private keys, and values given.

Every search takes time linear in the text: each pattern begins with fixed characters, looks back a bounded way, and
never gives back what it has taken.  Rather too much is found than too little.  Source: docs/runtime-trace.md, "Export".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from nous.replay.held import Held, Span

MAX_KEY_BLOCK_CHARACTERS: Final = 64 * 1024
"""No private key is longer; two markers further apart do not belong together."""


def _token(prefix: str, rest: str, *, glued: str = "(?!)", word: str = "A-Za-z0-9") -> re.Pattern[str]:
    """Return a pattern for ``prefix`` at the beginning of a word, and ``rest``; or anywhere, and ``glued``.

    A word also begins behind an escaped line end: texts that hold JSON are full of them.
    """
    at_word = rf"(?:(?<![{word}]{prefix})|(?<=\\[nrt]{prefix}))"
    return re.compile(rf"(?P<secret>{prefix}(?:{at_word}{rest}|{glued}))")


_SEPARATOR: Final = r"[\s:=\"'\\]{1,8}+"

PATTERNS: Final[tuple[re.Pattern[str], ...]] = (
    _token(
        "sk", r"(?:-[A-Za-z0-9_-]{6,}+|_(?:live|test)_[A-Za-z0-9]{8,}+)", glued=r"-[A-Za-z0-9]{20,}+[A-Za-z0-9_-]*+"
    ),
    _token("gh", r"[a-z]_[A-Za-z0-9]{8,}+", glued=r"[a-z]_[A-Za-z0-9]{20,}+"),
    _token("github_pat_", r"[A-Za-z0-9_]{8,}+"),
    _token("glpat-", r"[A-Za-z0-9_-]{8,}+"),
    _token("AKIA", r"[0-9A-Z]{12,}+", glued=r"[0-9A-Z]{16,}+"),
    _token("ASIA", r"[0-9A-Z]{12,}+", glued=r"[0-9A-Z]{16,}+"),
    _token("AIza", r"[0-9A-Za-z_-]{16,}+", glued=r"[0-9A-Za-z_-]{30,}+"),
    _token("xox", r"[a-z]-[A-Za-z0-9-]{8,}+", glued=r"[a-z]-[0-9]{8,}+[A-Za-z0-9-]*+"),
    # JSON Web Tokens.  A token is scanned once: none begins inside another's segment.
    _token("eyJ", r"[A-Za-z0-9_-]{4,}+\.[A-Za-z0-9_-]{4,}+(?:\.[A-Za-z0-9_-]*+){0,3}+", word="A-Za-z0-9_-"),
    re.compile(rf"[Bb](?:earer|EARER){_SEPARATOR}(?P<secret>[A-Za-z0-9._~+/=-]{{6,}}+)"),
    _token("npm_", r"[A-Za-z0-9]{16,}+"),
    _token("hf_", r"[A-Za-z0-9]{16,}+"),
    _token("pypi-", r"[A-Za-z0-9_]{16,}+[A-Za-z0-9_-]*+"),
    re.compile(rf"[Aa]uthorization{_SEPARATOR}[Bb]asic{_SEPARATOR}(?P<secret>[A-Za-z0-9+/=_-]{{4,}}+)"),
    # A password in a URL.
    re.compile(r"://[^/\s:@\"']{0,256}+:(?P<secret>[^/\s@\"']{1,256}+)@"),
)

_BASIC: Final = re.compile(r"[Bb](?:asic|ASIC)[ \t]{1,8}+(?P<secret>[A-Za-z0-9+/_-]{8,1024}+={0,2}+)")
_STANDARD_BASE64: Final = str.maketrans("-_", "+/")

_KEY_EDGE: Final = re.compile(r"-----(?P<edge>BEGIN|END) [A-Z0-9 ]{0,64}?PRIVATE KEY(?: BLOCK)?-----")
_KEY_BODY: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/= \t\r\n\\"
_KEY_BODY_AHEAD: Final = re.compile(rf"[{re.escape(_KEY_BODY)}]{{0,{MAX_KEY_BLOCK_CHARACTERS}}}+")


def find_secrets(text: str, held: Held | None = None) -> list[Span]:
    """Return where secrets stand in a text, in order; they do not overlap.  ``held`` are values known to be some."""
    values = () if held is None else held.find(text)
    return merge([*_find_tokens(text), *_find_credentials(text), *_find_private_keys(text), *values])


def _find_tokens(text: str) -> Iterator[Span]:
    for pattern in PATTERNS:
        for match in pattern.finditer(text):
            yield Span(*match.span("secret"))


def _find_credentials(text: str) -> Iterator[Span]:
    """Find ``Basic dXNlcjpwYXNz``: the word alone is an ordinary one, so what follows it has to be credentials."""
    for match in _BASIC.finditer(text):
        token = match["secret"].rstrip("=").translate(_STANDARD_BASE64)
        with suppress(ValueError):
            if b":" in base64.b64decode(token + "=" * (-len(token) % 4)):
                yield Span(*match.span("secret"))


def _find_private_keys(text: str) -> Iterator[Span]:
    """Find private keys in PEM, markers included; also one whose beginning or end was cut off."""
    begin: re.Match[str] | None = None
    searched = 0
    for edge in _KEY_EDGE.finditer(text):
        if edge["edge"] == "BEGIN":
            if begin is not None:
                yield _key_without_end(text, begin)
            begin = edge
        elif begin is not None and edge.start() - begin.end() <= MAX_KEY_BLOCK_CHARACTERS:
            yield Span(begin.start(), edge.end())
            begin = None
        else:
            # No further back than the last marker, so that many of them cost no more than the text's length.
            before = text[max(searched, edge.start() - MAX_KEY_BLOCK_CHARACTERS) : edge.start()]
            body = before[len(before.rstrip(_KEY_BODY)) :].lstrip()
            yield Span(edge.start() - len(body), edge.end())
        searched = edge.end()
    if begin is not None:
        yield _key_without_end(text, begin)


def _key_without_end(text: str, begin: re.Match[str]) -> Span:
    body = _KEY_BODY_AHEAD.match(text, begin.end())
    return Span(begin.start(), begin.end() + (0 if body is None else len(body[0].rstrip())))


def merge(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, those that overlap as one."""
    out: list[Span] = []
    for span in sorted(spans):
        if out and span.start < out[-1].end:
            out[-1] = Span(out[-1].start, max(out[-1].end, span.end))
        else:
            out.append(span)
    return out
