"""The settings as a flat table of dotted paths, derived from the structs of :mod:`nous.config.settings`.

    provider.model        a leaf: one value
    tools.policy          an open mapping: its keys are not known beforehand,
    tools.policy.bash     and each is a path of its own

No part of a path contains a dot, so a dotted path is unambiguous.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from nous.config.settings import Settings

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_SHOWN_WORD: Final = re.compile(r"[A-Za-z0-9]{1,8}", re.ASCII)
_OPEN_PART: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


class Key(NamedTuple):
    """One setting: where it stands, what it takes (``type``: of one value), and who may give it."""

    path: str
    type: Any
    is_open: bool
    doc: str
    env: str | None
    flag: str | None
    is_path: bool
    owner_only: bool
    hidden: bool


class WrongValueError(Exception):
    """A value does not fit its key.  ``expected`` says what would; the value itself is never repeated."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected


def find_key(path: str) -> Key | None:
    """Return the key of a dotted path; an entry of an open mapping has its mapping's key."""
    key = KEYS.get(path)
    if key is not None:
        return None if key.is_open else key
    parent, _, part = path.rpartition(".")
    key = KEYS.get(parent)
    return key if key is not None and key.is_open and is_open_part(part) else None


def is_open_part(text: str) -> bool:
    """Whether ``text`` may name an entry of an open mapping."""
    return _OPEN_PART.fullmatch(text) is not None


def check_value(key: Key, value: object) -> object:
    """Return ``value`` as the key's type.

    Nothing is guessed: a number in quotes is not a number, 1 is not true.

    Raises:
        WrongValueError: it does not fit.
    """
    try:
        return msgspec.convert(value, key.type)
    except (msgspec.ValidationError, TypeError, ValueError):
        raise WrongValueError(describe(key.type)) from None


def parse_text(key: Key, text: str) -> object:
    """Return what ``text``, given where there are only strings, means for ``key``.

    Raises:
        WrongValueError: it does not fit.
    """
    kind, _ = _split(_without_none(key.type))
    if kind is bool:
        return check_value(key, {"true": True, "false": False}.get(text, text))
    if kind is int:
        return check_value(key, int(text) if _INTEGER.fullmatch(text) else text)
    if get_origin(kind) is tuple:
        return check_value(key, [part.strip() for part in text.split(",")] if text else [])
    return check_value(key, text)


def suggest_key(path: str) -> str:
    """Return ``; did you mean ...`` for a path that was mistyped or put in the wrong place, else nothing."""
    import difflib

    name = path.rpartition(".")[2]
    by_name: dict[str, str] = {}
    for known in KEYS:
        by_name.setdefault(known.rpartition(".")[2], known)
    if name in by_name:
        return f"; did you mean {by_name[name]}?"
    close = difflib.get_close_matches(path, [*sorted(SECTIONS), *KEYS], n=1)
    if not close:
        close = [by_name[near] for near in difflib.get_close_matches(name, by_name, n=1, cutoff=0.75)]
    return f"; did you mean {close[0]}?" if close else ""


def show_value(key: Key, value: object) -> str | None:
    """Return a wrong text as a message may show it; None for other values.

    Only a word that is too short for any key or password is shown, and only where numbers and words of a list belong.
    """
    if not isinstance(value, str):
        return None
    if not value:
        return "an empty text"
    kind, _ = _split(_without_none(key.type))
    is_word_of_a_list = get_origin(kind) is Literal
    if (is_word_of_a_list or kind in (bool, int)) and _SHOWN_WORD.fullmatch(value):
        return f'"{value}"'
    return "this text" if is_word_of_a_list else None


def flatten(settings: Settings) -> dict[str, object]:
    """Return every value by its dotted path, in the order of the structs; open mappings by entry."""
    flat: dict[str, object] = {}
    for path, key in KEYS.items():
        value: Any = settings
        for part in path.split("."):
            value = getattr(value, part)
        if key.is_open:
            flat.update({f"{path}.{part}": entry for part, entry in value.items()})
        else:
            flat[path] = value
    return flat


def hidden_values(settings: Settings) -> set[str]:
    """Return the values that are never shown."""
    flat = flatten(settings)
    return {str(value) for path, value in flat.items() if value and (key := find_key(path)) is not None and key.hidden}


def build_settings(values: Mapping[str, object]) -> Settings:
    """Return the settings with ``values`` (checked, by dotted path) in place of the defaults."""
    root: dict[str, Any] = {}
    for path, value in values.items():
        *sections, name = path.split(".")
        mapping = root
        for section in sections:
            mapping = mapping.setdefault(section, {})
        mapping[name] = value
    return msgspec.convert(root, Settings)


def describe(annotation: Any) -> str:
    """Say in words what a setting's type takes, besides null: ``an integer from 1 to 64``, ``one of finish, abort``."""
    kind, metas = _split(_without_none(annotation))
    for meta in metas:
        if meta.extra and "expected" in meta.extra:
            return str(meta.extra["expected"])
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        return "a list of strings"
    if kind is int:
        bounds = [(meta.ge, meta.le) for meta in metas if meta.ge is not None]
        return "an integer" + "".join(f" from {low} to {high}" for low, high in bounds)
    return "true or false" if kind is bool else "a string that is not empty"


def is_optional(annotation: Any) -> bool:
    """Whether a setting of this type may be null: nobody gave it."""
    return _without_none(annotation) is not annotation


def _split(annotation: Any) -> tuple[Any, list[Meta]]:
    """Return an annotation's type and all that is noted on it."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    kind, *notes = get_args(annotation)
    return kind, notes


def _without_none(annotation: Any) -> Any:
    """Return what stands beside None in an optional type, any other as it is."""
    kind, _ = _split(annotation)
    if get_origin(kind) not in (Union, UnionType):
        return annotation
    (kind,) = (part for part in get_args(kind) if part is not NoneType)
    return kind


def _collect(struct: type[Struct], prefix: str) -> Iterator[Key]:
    for field in msgspec.structs.fields(struct):
        kind, metas = _split(field.type)
        if isinstance(kind, type) and issubclass(kind, Struct):
            yield from _collect(kind, f"{prefix}{field.name}.")
            continue
        notes: dict[str, Any] = {name: note for meta in metas for name, note in (meta.extra or {}).items()}
        is_open = get_origin(kind) is dict
        yield Key(
            path=prefix + field.name,
            type=get_args(kind)[1] if is_open else field.type,
            is_open=is_open,
            doc=" ".join(meta.description for meta in metas if meta.description),
            env=notes.get("env"),
            flag=notes.get("flag"),
            is_path=bool(notes.get("path")),
            owner_only=bool(notes.get("owner_only")) or field.name.endswith("_env"),
            hidden=bool(notes.get("hidden")),
        )


KEYS: Final[Mapping[str, Key]] = {key.path: key for key in _collect(Settings, "")}
"""Every setting by its dotted path, in the order of the structs."""

SECTIONS: Final = frozenset(path[:at] for path in KEYS for at, letter in enumerate(path) if letter == ".")
"""The dotted paths of mappings whose keys are known."""
