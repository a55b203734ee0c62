"""Replacing a text in the bytes of a file: its encoding, its newlines and all other bytes stay.  Pure and linear."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple

from nous.tools.diff import unified_diff
from nous.tools.encodings import TextEncoding, detect_encoding, is_iso_2022, iso_2022_spans
from nous.tools.failure import ToolFailure, quoted
from nous.tools.newlines import NewlineText, Replaced, replace_spans
from nous.tools.text import encode

MAX_PLACES: Final = 1_000_000
MAX_CHANGED_CHARACTERS: Final = 64 * 1024 * 1024
"""What a file may become: a long text in many places is more than memory holds."""

_BOM: Final = "\ufeff"


class Replacement(NamedTuple):
    """What to replace in the file that was named ``given``."""

    given: str
    old: str
    new: str
    replaces_all: bool


class Change(NamedTuple):
    """A file's new content, and the diff that leads to it."""

    data: bytes
    diff: str


def change_text(data: bytes, wanted: Replacement, name: str) -> Change:
    """Return the changed file and the diff, in which the file is called ``name``.

    Raises:
        ToolFailure: the file is no text, or the text to replace is not there, not unique, or not to be replaced.
    """
    encoding = detect_encoding(data)
    text = None if encoding is None else _decode(data, encoding)
    if encoding is None or text is None:
        raise ToolFailure(f"{quoted(wanted.given)} is a binary file and is not edited.")
    replacements = find_replacements(text, wanted)
    if encoding.codec == "utf-8" and (not _is_utf8(data) or is_iso_2022(data)):
        _require_safe_bytes(text, replacements, wanted)
    changed = replace_spans(text, replacements).encode(encoding.codec, _errors(encoding))
    diff = unified_diff(name, text, replacements)
    return Change(changed, diff.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def find_replacements(text: str, wanted: Replacement) -> list[Replaced]:
    """Return what to replace in ``text``.

    Raises:
        ToolFailure: the old text is not there, not unique, or the same as the new one.
    """
    given = wanted.given
    old, new = _plain(wanted.old, "old_text"), _plain(wanted.new, "new_text")
    if not old:
        raise ToolFailure("`old_text` is empty but for a BOM: say what to replace.")
    if old == new:
        raise ToolFailure("`old_text` and `new_text` are the same: there is nothing to change.")
    newlines = NewlineText(text)
    places = newlines.find_all(old, MAX_PLACES + 1)
    if not places:
        raise ToolFailure(_not_found(newlines.plain, old, given))
    if not wanted.replaces_all and not newlines.is_unique(old):
        lines = ", ".join(str(newlines.plain.count("\n", 0, at) + 1) for at in places[:10])
        more = "more than " * (len(places) > MAX_PLACES)
        raise ToolFailure(
            f"`old_text` stands {more}{min(max(len(places), 2), MAX_PLACES)} times in {quoted(given)} (line {lines}). "
            "Give more of the text around it to make it unique, or set `replace_all`."
        )
    size = len(text) + len(places) * (len(new) + new.count("\n") - len(old))
    if len(places) > MAX_PLACES or size > MAX_CHANGED_CHARACTERS:
        raise ToolFailure(
            f"{quoted(given)} is not changed in more than {MAX_PLACES} places, nor made longer than "
            f"{MAX_CHANGED_CHARACTERS} characters; edit it with a command."
        )
    return [newlines.replacement(at, old, new) for at in places]


def _decode(data: bytes, encoding: TextEncoding) -> str | None:
    """Return the text, ``None`` if the file would not be the same after being encoded again."""
    try:
        return data.decode(encoding.codec, _errors(encoding))
    except UnicodeDecodeError:
        return None


def _errors(encoding: TextEncoding) -> str:
    return "surrogateescape" if encoding.codec == "utf-8" else "strict"


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _require_safe_bytes(text: str, replacements: list[Replaced], wanted: Replacement) -> None:
    """Make sure that a replacement is right in any encoding that the file may have: it is not UTF-8."""
    name = quoted(wanted.given)
    if not (wanted.old.isascii() and wanted.new.isascii()):
        raise ToolFailure(
            f"{name} is not UTF-8, and its encoding is not known: only ASCII text can be replaced by ASCII text. "
            "Convert it with a command (iconv) first."
        )
    for start, _, new in replacements:
        # In Shift-JIS, GBK or Big5 the second byte of a character may look like an ASCII letter.
        first = text[start]
        if start and not text[start - 1].isascii() and first >= "0" and not new.startswith(first):
            raise _within_character(name)
    starts = [start for start, _, _ in replacements]
    for begin, end in iso_2022_spans(text):
        # The last replacement that begins before the span ends is the only one that may reach into it.
        at = bisect_left(starts, end) - 1
        if at >= 0 and replacements[at].end > begin:
            raise _within_character(name)


def _within_character(name: str) -> ToolFailure:
    return ToolFailure(
        f"{name} is not UTF-8, and `old_text` may begin in the middle of a character there. "
        "Convert it with a command (iconv) first."
    )


def _plain(text: str, field: str) -> str:
    """Return a text as it is compared: its newlines LF, without the BOM of the file it was copied from."""
    return encode(text, field).decode().replace("\r\n", "\n").removeprefix(_BOM)


def _not_found(plain: str, old: str, given: str) -> str:
    sentence = f"`old_text` stands 0 times in {quoted(given)}; nothing was changed. "
    first_line = next((line.strip() for line in old.split("\n") if line.strip()), "")
    at = plain.find(first_line) if first_line else -1
    if at < 0:
        return f"{sentence}Read the file again and copy the text exactly."
    number = plain.count("\n", 0, at) + 1
    return (
        f"{sentence}Its first line is like line {number}: compare indentation and what follows, character by character."
    )
