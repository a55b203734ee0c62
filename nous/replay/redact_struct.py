"""Redacts every text of a struct, field by field as its type has them; what is not understood is refused.

A new kind of input, message or block needs no code here: its texts are redacted because they are texts.  Left alone are
values that cannot hold a secret: those of a closed list, and names that nous made itself and that have its form.
Source: docs/runtime-trace.md, "Export".
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final, TypeVar, cast

from msgspec import UNSET, Struct, inspect, structs

from nous.errors import CODES, NousError
from nous.protocol.messages import ImageBlock, ToolCallBlock
from nous.replay.redact import Redactor

S = TypeVar("S", bound=Struct)

BUILTIN_TOOLS: Final = frozenset({"read", "write", "edit", "bash", "grep", "find", "ls"})

_JSON_TEXTS: Final = {(ToolCallBlock, "arguments")}
"""Fields that hold JSON as a model wrote it."""

_DATA: Final = {(ImageBlock, "data")}
_TOOL_FIELDS: Final = frozenset({"name", "tool", "tool_name", "tools", "known_tools", "active_tools"})
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}(?:Z|[+-][0-9:]{4,6})")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_MADE_ID: Final = r"[a-z]{3,4}-[0-9a-z]{12}-[0-9a-z]{14}"
_BELOW: Final = r"(?:-[a-z][0-9]{1,9}|-summary){0,3}"
"""What the engine puts behind an id for what stands below it: messages, tool calls, compactions."""


class StructRedactor:
    """Redacts structs of one run; the same text always becomes the same, so that names still fit each other."""

    def __init__(self, redactor: Redactor, run_id: str = "") -> None:
        self._redactor = redactor
        own = rf"(?:{_MADE_ID}|{re.escape(run_id)})" if run_id else _MADE_ID
        self._own_id = re.compile(own + _BELOW)

    def struct(self, item: S) -> S:
        """Return a struct without secrets.

        Raises:
            NousError: ``verification_failed`` if there is a value in it whose type is not known here.
        """
        kind = type(item)
        changed: dict[str, Any] = {}
        for name in _open_fields(kind):
            before = getattr(item, name)
            after = self._field(kind, name, before)
            if after is not before:
                changed[name] = after
        return structs.replace(item, **changed) if changed else item

    def text_id(self, text: str) -> str:
        """Return an id without secrets: one that nous made stays, one that a client or a model gave is a text."""
        return text if self._own_id.fullmatch(text) else self._redactor.text(text)

    def tool_name(self, name: str) -> str:
        """Return a tool's name without secrets: those of the built-in tools stay."""
        return name if name in BUILTIN_TOOLS else self._redactor.text(name)

    def _field(self, kind: type, name: str, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(kind, name, value)
        if value is None or value is UNSET or isinstance(value, bool | int | float):
            return value
        return self._container(kind, name, value)

    def _container(self, kind: type, name: str, value: Any) -> Any:
        if isinstance(value, Struct):
            return self.struct(value)
        if isinstance(value, list | tuple):
            after = [self._field(kind, name, each) for each in value]
            is_same = all(one is other for one, other in zip(value, after, strict=True))
            return value if is_same else type(value)(after)
        if isinstance(value, dict):
            return self._redactor.value(value)
        raise NousError(
            "verification_failed",
            f"{kind.__name__}.{name}: a {type(value).__name__} cannot be redacted",
            hint="Please report it.",
        )

    def _text(self, kind: type, name: str, text: str) -> str:
        if (kind, name) in _JSON_TEXTS:
            return self._redactor.arguments(text)
        if (kind, name) in _DATA and _BASE64.fullmatch(text):
            return self._redactor.data(text)
        if name in _TOOL_FIELDS:
            return self.tool_name(text)
        return text if self._is_own(name, text) else self._redactor.text(text)

    def _is_own(self, name: str, text: str) -> bool:
        """Tell whether a text is a name or time that nous made, by its field and by its form."""
        if name == "code":
            return text in CODES
        if name.endswith("digest"):
            return _DIGEST.fullmatch(text) is not None
        if name in ("ts", "created_at"):
            return _TIME.fullmatch(text) is not None
        return name.endswith(("id", "ids")) and self._own_id.fullmatch(text) is not None


@cache
def _open_fields(kind: type[Struct]) -> tuple[str, ...]:
    """Return the fields of a struct that can hold more than numbers and words of a closed list."""
    found = cast(inspect.StructType, inspect.type_info(kind))
    return tuple(field.name for field in found.fields if not _is_closed(field.type))


def _is_closed(kind: inspect.Type) -> bool:
    match kind:
        case inspect.Metadata():
            return _is_closed(kind.type)
        case inspect.UnionType():
            return all(map(_is_closed, kind.types))
        case inspect.VarTupleType():
            return _is_closed(kind.item_type)
        case inspect.CustomType():
            return kind.cls is type(UNSET)
    closed = (inspect.LiteralType, inspect.NoneType, inspect.BoolType, inspect.IntType, inspect.FloatType)
    return isinstance(kind, closed)
