"""JSON Schema (draft 2020-12) of the extension host protocol, generated from the structs.

One document, ``extension-host.schema.json``: each line by its ``type``, and what a ``result`` may hold as its
``value`` as ``answer_tool`` and ``answer_<hook>``.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import msgspec
from msgspec import Struct

from nous.extensions.answers import ANSWERS
from nous.extensions.tool import ToolAnswer
from nous.extensions.wire import CallLine, Cancel, HelloLine, LogLine, Progress, ResultLine

DOCUMENT_NAME: Final = "extension-host.schema.json"

_LINES: Final[dict[str, type[Struct]]] = {
    "hello": HelloLine,
    "result": ResultLine,
    "progress": Progress,
    "log": LogLine,
    "call": CallLine,
    "cancel": Cancel,
}


def host_schema() -> dict[str, Any]:
    """Return the document."""
    answers = {f"answer_{hook}": kind for hook, kind in ANSWERS.items()}
    types: dict[str, type[Struct]] = {**_LINES, "answer_tool": ToolAnswer, **answers}
    _, found = msgspec.json.schema_components(tuple(dict.fromkeys(types.values())), ref_template="#/$defs/{name}")
    for schema in found.values():
        _tidy(schema)
    named = {name: {**found[kind.__name__], "title": name, **_about(kind)} for name, kind in types.items()}
    shared = {name: schema for name, schema in found.items() if name not in {t.__name__ for t in types.values()}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:nous:protocol:v1:extension-host",
        "title": "nous extension host protocol, version 1",
        "description": "A line between nous and an extension; hello, result, progress and log are the extension's.",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in _LINES],
        "$defs": {**named, **shared},
    }


def _about(kind: type[Struct]) -> dict[str, str]:
    return {"description": inspect.cleandoc(kind.__doc__)} if kind.__doc__ else {}


def _tidy(schema: Any) -> None:
    """Write patterns as ECMA knows them, everywhere in a schema."""
    if isinstance(schema, list):
        for item in schema:
            _tidy(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            schema["pattern"] = schema["pattern"].replace(r"\Z", "$")
        for value in schema.values():
            _tidy(value)
