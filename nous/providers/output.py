"""Structured output as vendors know it: whether a schema can be enforced there, and words for where it cannot.  Pure.

Sources: OpenAI's guide "Structured outputs", Anthropic's "Structured outputs", Gemini API reference
("GenerationConfig"), DeepSeek's and Moonshot's guides to their JSON modes.  Whatever a vendor does, the answer is
checked by nous itself; what is sent here only makes it likely that it fits.
"""

from __future__ import annotations

from typing import Any, Final

from nous.ports.model import ModelRequest
from nous.providers.wire import encode_json

NAME: Final = "output"
"""Dialects that want a schema to have a name get this one."""

_CLOSED_KEYWORDS: Final = frozenset(
    {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "const",
        "anyOf",
        "title",
        "description",
    }
)
"""What vendors enforce strictly is a small part of JSON Schema.  With any other keyword they refuse the request."""

_WORDS: Final = """\
Answer with one JSON value and nothing else: no code fence, no words before or after it. It must be valid against this \
JSON Schema:
"""


def is_object(schema: dict[str, Any]) -> bool:
    """Return whether a schema is one of an object."""
    return schema.get("type") == "object"


def is_closed(schema: Any) -> bool:
    """Whether vendors can enforce a schema strictly: few keywords, every object with all its fields and no others."""
    if not isinstance(schema, dict) or not schema.keys() <= _CLOSED_KEYWORDS:
        return False
    if "properties" in schema or is_object(schema):
        properties = schema.get("properties", {})
        is_whole = schema.get("additionalProperties") is False and set(schema.get("required", ())) == set(properties)
        if not is_whole or not all(map(is_closed, properties.values())):
            return False
    parts = [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())]
    return all(map(is_closed, parts))


def is_strict(schema: dict[str, Any]) -> bool:
    """Return whether vendors' strict mode takes a schema: an object that is closed throughout."""
    return is_object(schema) and is_closed(schema)


def named_format(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the fields by which OpenAI's dialects take a schema."""
    return {"name": NAME, "schema": schema, "strict": is_strict(schema)}


def system_text(request: ModelRequest, *, is_enforced: bool) -> str:
    """Return the system prompt, with the schema in words where the vendor does not see to it."""
    schema = request.output_schema
    if schema is None or is_enforced:
        return request.system
    words = _WORDS + encode_json(schema).decode()
    return f"{request.system}\n\n{words}" if request.system else words
