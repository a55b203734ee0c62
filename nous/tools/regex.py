r"""The regular expressions ``grep`` takes: one dialect, translated for ripgrep and for Python so that both agree.

A pattern is matched within one line, character by character; a byte that is not UTF-8 is not a character, and a CR
belongs to the end of its line.
Supported: literals; ``.``; ``[...]`` with ranges, negation and ``[:alpha:]`` classes; ``\d \w \s \D \W \S \b``;
``^`` at the beginning, ``$``; groups, named or not; ``|``; ``* + ? {n,m}``, also lazy; ``\t \xHH \uHHHH``; ``(?i)`` in
front.  A backslash before punctuation makes it literal, a ``{`` that begins no count is literal.  Refused, because
not both engines have it or it means different things: look-around, backreferences, ``\p``, ``\B``, ``^`` elsewhere,
flags inside, possessive counts.  Pure.

Sources: the documentation of Rust's regex crate (syntax) and of Python's ``re``.
"""

from __future__ import annotations

import re
import sys
from typing import Final

from nous.tools.regex_engines import CharacterSet, Engine, PatternWriter

MAX_PATTERN_CHARACTERS: Final = 10_000
MAX_COUNT: Final = 1000
MAX_DEPTH: Final = 100

_PERL_CLASSES: Final = "dDwWsS"
_ESCAPED_CHARACTERS: Final = {"t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_HEX_DIGITS: Final = {"x": 2, "u": 4, "U": 8}
_POSIX_CLASSES: Final = {
    "alnum": "09AZaz",
    "alpha": "AZaz",
    "ascii": "\0\x0c\x0e\x7f",
    "blank": "\t\t  ",
    "cntrl": "\0\x0c\x0e\x1f\x7f\x7f",
    "digit": "09",
    "graph": "!~",
    "lower": "az",
    "print": " ~",
    "punct": "!/:@[`{~",
    "space": "\t\x0c  ",
    "upper": "AZ",
    "word": "09AZaz__",
    "xdigit": "09AFaf",
}
"""Pairs of first and last character; the CR is in none."""

_COUNT: Final = re.compile(
    r"(?:(?P<sign>[*+?])|\{(?:(?P<exact>[0-9]{1,6})|(?P<low>[0-9]{0,6}),(?P<high>[0-9]{0,6}))(?<!\{,)\})\??"
)
_GROUP_NAME: Final = re.compile(r"\?(?::|P?<[A-Za-z_][A-Za-z0-9_]*>)")
_POSIX: Final = re.compile(r"\[:([a-z]+):\]")
_BRACED_HEX: Final = re.compile(r"\{([0-9A-Fa-f]{1,6})\}")
_HEX: Final = {digits: re.compile(f"([0-9A-Fa-f]{{{digits}}})") for digits in _HEX_DIGITS.values()}


class DialectError(Exception):
    """The pattern is not of the dialect; the text says what is wrong and where."""


def translate(pattern: str, engine: Engine, *, ignore_case: bool = False, literal: bool = False) -> str:
    """Return the regular expression for ``engine`` that finds in a line what ``pattern`` means.

    Raises:
        DialectError: the pattern is not of the dialect.
    """
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise DialectError(f"it is longer than {MAX_PATTERN_CHARACTERS} characters")
    if "\n" in pattern:
        raise DialectError("it has a line break in it, but a pattern is matched within one line")
    if not literal and pattern.startswith("(?i)"):
        pattern, ignore_case = pattern[4:], True
    writer = PatternWriter(engine, ignore_case=ignore_case)
    body = "".join(map(writer.character, pattern)) if literal else _Parser(pattern, writer).parse()
    return f"(?i){body}" if ignore_case else body


class _Group:
    """A parenthesis that is open: whether nothing stands before it, and whether there is a ``^`` in it."""

    def __init__(self, is_at_start: bool) -> None:
        self.is_at_start = is_at_start
        self.has_caret = False


class _Parser:
    """Reads a pattern from the left and writes its translation piece by piece."""

    def __init__(self, pattern: str, writer: PatternWriter) -> None:
        self._pattern = pattern
        self._writer = writer
        self._at = 0
        self._groups = [_Group(is_at_start=True)]
        self._is_at_start = True
        self._is_countable = False
        self._repeats_caret = False

    def parse(self) -> str:
        output: list[str] = []
        while self._at < len(self._pattern):
            output.append(self._count() or self._piece(self._take()))
        if len(self._groups) > 1:
            raise self._error("a parenthesis is not closed")
        return "".join(output)

    def _count(self) -> str:
        """Return the translation of the count that stands here, ``""`` if none does."""
        found = _COUNT.match(self._pattern, self._at)
        if found is None:
            return ""
        if not self._is_countable:
            raise self._error("a count has nothing to count")
        self._at = found.end()
        self._is_countable = False
        if self._repeats_caret and found["sign"] != "?":
            raise self._error("a group with ^ in it cannot be repeated")
        # Lazy or greedy: a line that matches one way matches the other.
        if found["sign"]:
            return str(found["sign"])
        low = int(found["exact"] or found["low"] or 0)
        high = low if found["exact"] else int(found["high"] or MAX_COUNT)
        if not low <= high <= MAX_COUNT:
            raise self._error(f"a count must go upwards and not past {MAX_COUNT}")
        return f"{{{low}}}" if found["exact"] else f"{{{low},{found['high']}}}"

    def _piece(self, character: str) -> str:
        self._is_countable = character not in "(|^$"
        self._repeats_caret = False
        match character:
            case "(":
                return self._open_group()
            case ")":
                return self._close_group()
            case "|":
                self._is_at_start = self._groups[-1].is_at_start
                return "|"
            case "^":
                return self._caret()
        self._is_at_start = False
        match character:
            case "$":
                return self._writer.end_of_line()
            case ".":
                return self._writer.any_character()
            case "[":
                return self._writer.one_of(self._class())
            case "\\":
                return self._escape()
            case _:
                return self._writer.character(character)

    def _caret(self) -> str:
        """A ``^`` that comes after a ``$`` is a case in which engines differ: none comes after anything."""
        if not self._is_at_start:
            raise self._error("^ can only stand at the beginning")
        self._groups[-1].has_caret = True
        return "^"

    def _open_group(self) -> str:
        self._groups.append(_Group(self._is_at_start))
        if len(self._groups) > MAX_DEPTH + 1:
            raise self._error(f"parentheses are nested deeper than {MAX_DEPTH}")
        if self._peek() == "?":
            found = _GROUP_NAME.match(self._pattern, self._at)
            if found is None:
                raise self._error("look-around and flags inside are not supported")
            self._at = found.end()
        return "(?:"

    def _close_group(self) -> str:
        if len(self._groups) == 1:
            raise self._error("a parenthesis closes nothing")
        self._repeats_caret = self._groups.pop().has_caret
        self._groups[-1].has_caret |= self._repeats_caret
        self._is_at_start = False
        return ")"

    def _escape(self) -> str:
        letter = self._peek()
        if letter == "b":
            self._take()
            self._is_countable = False
            return self._writer.boundary()
        if letter and letter in _PERL_CLASSES:
            self._take()
            return self._writer.one_of(CharacterSet([], [letter]))
        return self._writer.character(self._escaped_character())

    def _escaped_character(self) -> str:
        letter = self._take()
        if letter in _ESCAPED_CHARACTERS:
            return _ESCAPED_CHARACTERS[letter]
        if letter in _HEX_DIGITS:
            return self._hex_character(_HEX_DIGITS[letter])
        if letter.isalnum() or letter in "<>":
            raise self._error(f"\\{letter} is not supported")
        return letter

    def _hex_character(self, digits: int) -> str:
        found = _BRACED_HEX.match(self._pattern, self._at) or _HEX[digits].match(self._pattern, self._at)
        code = -1 if found is None else int(found[1], 16)
        if found is None or code > sys.maxunicode or 0xD800 <= code < 0xE000 or code == 0x0A:
            raise self._error("a character's number is not one that can stand in a line")
        self._at = found.end()
        return chr(code)

    def _class(self) -> CharacterSet:
        is_negated = self._peek() == "^"
        self._at += is_negated
        members = CharacterSet([], [], is_negated)
        is_first = True
        while is_first or self._peek() != "]":
            self._add_member(members)
            is_first = False
        self._take()
        return members

    def _add_member(self, members: CharacterSet) -> None:
        posix = _POSIX.match(self._pattern, self._at)
        if posix is not None:
            self._at = posix.end()
            pairs = _POSIX_CLASSES.get(posix[1])
            if pairs is None:
                raise self._error(f"there is no class [:{posix[1]}:]")
            members.ranges.extend(zip(pairs[::2], pairs[1::2], strict=True))
            return
        low = self._class_character()
        if low is None:
            members.perl.append(self._pattern[self._at - 1])
            return
        high: str | None = low
        if self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
            self._take()
            high = self._class_character()
        if high is None or high < low:
            raise self._error("a range must go upwards from one character to another")
        members.ranges.append((low, high))

    def _class_character(self) -> str | None:
        """Return the next character of a class, ``None`` for a Perl class (its letter has been read)."""
        character = self._take()
        if character != "\\":
            return character
        if self._peek() and self._peek() in _PERL_CLASSES:
            self._take()
            return None
        return self._escaped_character()

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._peek()
        if not character:
            raise self._error("it ends too early")
        self._at += 1
        return character

    def _error(self, reason: str) -> DialectError:
        return DialectError(f"{reason} (at character {self._at + 1})")
