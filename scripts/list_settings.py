"""The reference of all settings and variables, from :mod:`nous.config.settings`, for docs/configuration.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from nous.config.keys import KEYS, Key, describe, flatten, is_optional
from nous.config.layers import PROCESS_VARIABLES
from nous.config.settings import Settings
from scripts.pages import table

PAGE: Final = Path("docs/configuration.md")


def reference() -> str:
    blocks = ["`*`: not from a project's file.", *sections(), variables()]
    return "\n\n".join(blocks)


def sections() -> Iterator[str]:
    """Yield the table of each section, in the order of the structs."""
    defaults = flatten(Settings())
    titles: dict[str, list[Key]] = {}
    for key in KEYS.values():
        titles.setdefault(key.path.rpartition(".")[0], []).append(key)
    for title, keys in titles.items():
        rows = [row(key, defaults.get(key.path, {})) for key in keys]
        heading = f"### {title}\n\n{section_doc(title)}\n\n" if title else ""
        yield heading + table(("setting", "takes", "default", "also given by", "what it is for"), rows)


def row(key: Key, default: object) -> tuple[str, ...]:
    name = f"{key.path}.NAME" if key.is_open else key.path
    takes = describe(key.type) + (", or null" if is_optional(key.type) else "")
    elsewhere = ", ".join(f"`{place}`" for place in (key.flag, key.env) if place)
    mark = " *" if key.owner_only else ""
    shown = "" if key.is_open else f"`{msgspec.json.encode(default).decode()}`"
    return f"`{name}`{mark}", takes, shown, elsewhere, key.doc


def section_doc(title: str) -> str:
    struct: Any = Settings
    for part in title.split("."):
        struct = next(field.type for field in msgspec.structs.fields(struct) if field.name == part)
    return str(struct.__doc__).partition("\n")[0].replace("``", "`")


def variables() -> str:
    rows = [(f"`{key.env}`", f"`{key.path}`") for key in KEYS.values() if key.env]
    rows += [(f"`{name}`", f"{text} No setting: it is about one call.") for name, text in PROCESS_VARIABLES.items()]
    listed = table(("variable", "sets"), sorted(rows))
    return f"### Environment variables\n\nA closed list: any other `NOUS_*` is an error.\n\n{listed}"
