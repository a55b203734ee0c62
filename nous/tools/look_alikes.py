"""Names of files that look the same and are not: spaces, quotes, dashes and accents that a model writes differently.

macOS puts U+202F into the names of screenshots and decomposes accents, word processors curl quotes; a model that read
such a name writes the plain character.
"""

from __future__ import annotations

import os
import unicodedata
from itertools import islice
from typing import Final

MAX_ENTRIES: Final = 20_000
"""Of a larger directory only so many entries are compared."""

_PLAIN: Final = {
    " ": "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000",
    "'": "\u2018\u2019\u201a\u201b\u2032\u02bc",
    '"': "\u201c\u201d\u201e\u201f\u2033",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212",
    "": "\u200b\u200c\u200d\u2060\ufeff",
}
_TABLE: Final = {ord(character): plain for plain, characters in _PLAIN.items() for character in characters}


def plain_name(name: str) -> str:
    """Return what all names have in common that look like ``name``: plain punctuation, composed accents (NFC)."""
    return unicodedata.normalize("NFC", name.translate(_TABLE))


def find_look_alikes(directory_fd: int, name: str) -> list[str]:
    """Return the names in an open directory, other than ``name``, that look like it."""
    wanted = plain_name(name)
    with os.scandir(directory_fd) as entries:
        names = (entry.name for entry in islice(entries, MAX_ENTRIES))
        return [other for other in names if other != name and plain_name(other) == wanted]


def spelled(name: str) -> str:
    """Return a name with everything escaped that could be taken for something else."""
    return "".join(
        f"\\u{ord(c):04x}" if ord(c) in _TABLE or unicodedata.combining(c) or not c.isprintable() else c for c in name
    )
