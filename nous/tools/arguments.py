"""A tool's arguments: decoded into a struct, published as the JSON Schema of that struct.

Models are forgiven what they commonly do: other names for a field (``filePath``, ``cmd``), numbers as strings,
``null`` for what they leave out.  They are told exactly what is wrong otherwise, an unknown field included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from nous.errors import bound_text

ArgumentsT = TypeVar("ArgumentsT", bound=Struct)

_MAX_REASON_BYTES: Final = 500
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])([A-Z])")

ALIASES: Final[Mapping[str, str]] = {
    "file_path": "path",
    "filepath": "path",
    "file": "path",
    "filename": "path",
    "dir": "path",
    "directory": "path",
    "cmd": "command",
    "old_string": "old_text",
    "old_str": "old_text",
    "new_string": "new_text",
    "new_str": "new_text",
    "text": "content",
    "contents": "content",
    "max": "limit",
    "max_results": "limit",
    "max_lines": "limit",
    "head_limit": "limit",
    "start_line": "offset",
    "regex": "pattern",
    "query": "pattern",
    "include": "glob",
    "case_insensitive": "ignore_case",
    "fixed_strings": "literal",
    "context_lines": "context",
}
"""Names models use, after camelCase became snake_case, for the names that are published."""


class InvalidArgumentsError(Exception):
    """The call's arguments are not what the schema says; the text names the field and what is right."""


def decode_arguments(tool: str, given: Mapping[str, Any], shape: type[ArgumentsT]) -> ArgumentsT:
    """Return ``given`` as a ``shape``.

    Raises:
        InvalidArgumentsError: a field is missing, unknown, given twice, or of the wrong type or size.
    """
    fields = shape.__struct_fields__
    renamed: dict[str, Any] = {}
    for name, value in given.items():
        field = _field_for(name, fields)
        if field in renamed and renamed[field] != value:
            raise _invalid(tool, f"`{field}` is given twice, as {bound_text(name, 100)} too", shape)
        if value is not None:
            renamed[field] = value
    try:
        return msgspec.convert(renamed, shape, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(tool, str(error), shape) from None


def schema_of(shape: type[Struct]) -> dict[str, Any]:
    """Return the JSON Schema of ``shape``: one plain object, nothing referred to elsewhere."""
    schema: dict[str, Any] = msgspec.json.schema(shape)["$defs"][shape.__name__]
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def _field_for(name: str, fields: tuple[str, ...]) -> str:
    if name in fields:
        return name
    snake = _CAMEL.sub(r"_\1", name).lower()
    field = ALIASES.get(snake, snake)
    return field if field in fields else name


def _invalid(tool: str, reason: str, shape: type[Struct]) -> InvalidArgumentsError:
    reason = bound_text(reason.replace("`$.", "`"), _MAX_REASON_BYTES)
    return InvalidArgumentsError(f"Invalid arguments: {reason}. {tool} takes {_summary(shape)}.")


def _summary(shape: type[Struct]) -> str:
    schema = schema_of(shape)
    required = schema.get("required", [])
    return "; ".join(
        f"{name} ({_kind(field)}, {'required' if name in required else 'optional'})"
        for name, field in schema["properties"].items()
    )


def _kind(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(field["enum"])
    limits = [f"{word} {field[key]}" for key, word in (("minimum", ">="), ("maximum", "<=")) if key in field]
    return " ".join([str(field["type"]), *limits])
