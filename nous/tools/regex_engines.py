r"""How the elements of a regular expression are written for each engine, so that all mean the same characters.  Pure.

The measure is ripgrep with ``--crlf``: Unicode's simple case folding, and UTS#18 (annex C) for what ``\w``, ``\d`` and
``\s`` are.  Python differs in both, and shows a byte that is not UTF-8 as a lone surrogate.

A CR belongs to the end of a line, so that CRLF files match as LF files do: ``$`` matches before a last CR too, and only
what names the CR (``\r``) matches it, neither ``.`` nor a class like ``\s`` nor a negated one.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Final, Literal, NamedTuple

Engine = Literal["rust", "python", "python-ascii"]
"""``python-ascii`` is for lines that are ASCII: the same answers there, much faster."""

_DOTTED_I: Final = "iI\u0130\u0131"
"""Python takes these four for one letter when case is ignored; Unicode's simple case folding only the first two."""

_UNDECODABLE: Final = "\udc80-\udcff"
"""How bytes that are not UTF-8 stand in a Python line."""

_ASCII_PERL: Final = {
    "s": r"\t-\x0c\x20",
    "S": r"\x00-\x08\x0e-\x1f\x21-\x7f",
    "D": r"\x00-\x0c\x0e-/:-\x7f",
    "W": r"\x00-\x0c\x0e-/:-@\[-\^`\{-\x7f",
}
"""Python counts the separators \\x1c to \\x1f as spaces, Unicode does not."""

_WORD_CATEGORIES: Final = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "Pc"})
_OTHER_WORDS: Final = (
    range(0x200C, 0x200E),  # the joiners
    range(0x24B6, 0x24EA),  # letters in circles and squares: symbols that are alphabetic all the same
    range(0x1F130, 0x1F14A),
    range(0x1F150, 0x1F16A),
    range(0x1F170, 0x1F18A),
)


class CharacterSet(NamedTuple):
    """A set of characters: ranges (first, last) and the letters of Perl classes like ``w`` and ``D``."""

    ranges: list[tuple[str, str]]
    perl: list[str]
    is_negated: bool = False

    def contains(self, character: str) -> bool:
        """Return whether one of the letters i is in the set, negation left aside."""
        return any(low <= character <= high for low, high in self.ranges) or any(p in "wDS" for p in self.perl)


class PatternWriter:
    """Writes the elements of a pattern for one engine; the pattern's caller sets the flag that ignores case."""

    def __init__(self, engine: Engine, *, ignore_case: bool) -> None:
        self._engine = engine
        self._ignores_case = ignore_case

    def character(self, character: str) -> str:
        """Return the pattern of one character."""
        if self._needs_exact_case(character):
            return self.one_of(CharacterSet([(character, character)], []))
        return _written(character)

    def any_character(self) -> str:
        """Return the pattern of any character within a line."""
        return rf"[^\r{_UNDECODABLE}]" if self._engine == "python" else r"[^\r\n]"

    def end_of_line(self) -> str:
        """Return the pattern of a line's end, before a CR too."""
        return r"(?:\r?$)" if self._engine == "rust" else r"(?:\r?\Z)"

    def boundary(self) -> str:
        """Return the pattern of a word boundary."""
        if self._engine != "python":
            return r"\b"
        word = _unicode_word()
        return f"(?:(?<={word})(?!{word})|(?<!{word})(?={word}))"

    def one_of(self, members: CharacterSet) -> str:
        """Return the pattern of one character out of a set."""
        if self._engine == "rust":
            return _rust_class(members)
        written = _ascii_class(members) if self._engine == "python-ascii" else _unicode_class(members)
        return self._with_exact_case(members, written)

    def _needs_exact_case(self, character: str) -> bool:
        return self._ignores_case and self._engine != "rust" and character in _DOTTED_I

    def _with_exact_case(self, members: CharacterSet, written: str) -> str:
        """Return ``written`` without what only Python takes for the same letter when case is ignored."""
        if not self._ignores_case:
            return written
        present = [letter for letter in _DOTTED_I if members.contains(letter)]
        folded = {*present, *("iI" if {"i", "I"} & set(present) else "")}
        wrong = "".join(letter for letter in _DOTTED_I if present and letter not in folded)
        if not wrong:
            return written
        return f"(?:(?-i:[{wrong}])|{written})" if members.is_negated else f"(?:(?!(?-i:[{wrong}])){written})"


def _written(character: str) -> str:
    """Return a character so that no engine takes it for anything else."""
    if character == "_" or character.isalnum() or ord(character) > 0x7F:
        return character
    return f"\\x{ord(character):02x}"


def _written_ranges(members: CharacterSet) -> str:
    return "".join(
        _written(low) if low == high else f"{_written(low)}-{_written(high)}" for low, high in members.ranges
    )


def _rust_class(members: CharacterSet) -> str:
    perl = "".join(rf"[\{letter}--\r]" for letter in members.perl)
    return f"[{_negation(members)}{_written_ranges(members)}{perl}]"


def _negation(members: CharacterSet) -> str:
    return r"^\r" if members.is_negated else ""


def _ascii_class(members: CharacterSet) -> str:
    perl = "".join(_ASCII_PERL.get(letter, f"\\{letter}") for letter in members.perl)
    return f"[{_negation(members)}{_written_ranges(members)}{perl}]"


def _unicode_class(members: CharacterSet) -> str:
    ranges = _written_ranges(members)
    if not members.perl:
        return rf"[^\r{ranges}{_UNDECODABLE}]" if members.is_negated else f"[{ranges}]"
    either = "|".join([*([f"[{ranges}]"] if ranges else []), *map(_unicode_perl, members.perl)])
    return rf"(?:(?!{either})[^\r{_UNDECODABLE}])" if members.is_negated else f"(?:{either})"


def _unicode_perl(letter: str) -> str:
    match letter:
        case "w":
            return _unicode_word()
        case "W":
            return rf"(?:(?!{_unicode_word()})[^\r{_UNDECODABLE}])"
        case "s":
            return r"[^\S\r\x1c-\x1f]"
        case "S":
            return rf"(?:[\x1c-\x1f]|[^\s{_UNDECODABLE}])"
        case "d":
            return r"\d"
        case _:
            return rf"[^\d\r{_UNDECODABLE}]"


@cache
def _unicode_word() -> str:
    """Return a class of the characters that Unicode (UTS#18, annex C) counts as parts of words.

    Python's own ``\\w`` has numbers like the superscript 2 instead of marks, connectors and joiners.
    """
    extra: list[int] = []
    missing: list[int] = []
    for code in (*range(0x80, 0x20000), *range(0xE0000, 0xE1000)):
        character = chr(code)
        is_word = unicodedata.category(character) in _WORD_CATEGORIES or any(code in codes for codes in _OTHER_WORDS)
        if is_word != character.isalnum():
            (extra if is_word else missing).append(code)
    return rf"(?:(?![{_code_ranges(missing)}])[\w{_code_ranges(extra)}])"


def _code_ranges(codes: list[int]) -> str:
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges)
