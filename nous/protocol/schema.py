"""JSON Schema (draft 2020-12) of every line of protocol v1, generated from the structs.

Three documents: commands, responses, events.  In each, a definition named as on the wire (``prompt``,
``message_end``) is one whole line; a capitalised one (``Usage``) is a part several lines share; the document itself
is the union of its lines.  Unknown fields are allowed everywhere: v1 grows by adding.

What is required of an outgoing line is what v1 always had.  A field marked ``x-nous-always`` came after the freeze:
nous always sends it, an older peer may not.  Nothing here is imported before someone asks for a schema.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from nous.errors import CATEGORIES, RETRYABLE, WIRE_CODES
from nous.protocol import commands, events, messages, responses

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_VERSION: Final[Schema] = {"const": "1"}
_EVENT_ID: Final[Schema] = {
    "description": "<run_id>.<seq>, <run_id>.<seq>.<k> without a seq of its own, evt-<n> outside any run.",
    "type": "string",
    "minLength": 1,
}
_TIMESTAMP: Final[Schema] = {
    "description": "RFC 3339, UTC.",
    "type": "string",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$",
}


def documents() -> dict[str, Schema]:
    """Return the documents by file name; they are to be read, not changed."""
    return {
        "commands.schema.json": _commands(),
        "responses.schema.json": _responses(),
        "events.schema.json": _events(),
    }


def render(document: Schema) -> bytes:
    """Return a document's bytes: two spaces of indent, keys in the order of the structs, an LF at the end."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


@cache
def schema_digest() -> str:
    """Return the SHA-256 (hex) over names and bytes of all documents.

    Costs some 20 ms the first time in a process and nothing after: for ``hello``, not for the start of a daemon.
    """
    import hashlib  # ten milliseconds of OpenSSL, which only the first hello pays

    digest = hashlib.sha256()
    for name, document in documents().items():
        digest.update(name.encode() + b"\n" + render(document))
    return digest.hexdigest()


def _commands() -> Schema:
    parts, shared = _components(commands.COMMANDS, outgoing=False)
    parts["branch_session"]["anyOf"] = [
        {"properties": {name: {"type": "string"}}, "required": [name]} for name in ("session_id", "parent_id")
    ]
    lines = {name: _command_line(name, payload) for name, payload in parts.items()}
    return _document("commands", "A line a client may send.", lines, shared)


def _command_line(name: str, payload: Schema) -> Schema:
    version = {"description": 'Missing means "1"; the integer is accepted for the string.', "enum": ["1", 1]}
    ignored = {"description": "Accepted and ignored."}
    properties: dict[str, Schema] = {
        "v": version,
        "id": {
            "description": "Chosen by the client, echoed in the answer.",
            "type": "string",
            "minLength": 1,
            "maxLength": commands.MAX_ID_CHARACTERS,
        },
        "type": {"const": name},
        "payload": payload,
        "ts": ignored,
        "meta": ignored,
    }
    may_be_empty = not payload["required"] and "anyOf" not in payload
    return _object(properties, ["id", "type"] if may_be_empty else ["id", "type", "payload"], payload)


def _responses() -> Schema:
    parts, shared = _components({**responses.ANSWERS, "error": responses.WireError}, outgoing=True)
    error = parts.pop("error")
    _close_error_codes(error, shared)
    _refine_answers(parts)
    lines = {name: _response_line(name, payload, ok=True) for name, payload in parts.items()}
    lines["error"] = _response_line("error", {"type": "object"}, ok=False, error=error)
    return _document("responses", "A line that answers a command: it has `ok`.", lines, shared)


def _refine_answers(parts: dict[str, Schema]) -> None:
    """Add what the structs leave open: the repeated answer, and events kept as raw or flattened objects."""
    for payload in parts.values():
        payload["properties"]["duplicate"] = {
            "description": "This answers a repeated id, and is the answer the first one got.",
            "const": True,
        }
    parts["events"]["properties"]["events"]["items"] = {
        "description": "A line of events.schema.json.",
        "type": "object",
    }
    parts["result"]["properties"]["events"]["items"] = {
        "description": "The payload's fields beside these.",
        "type": "object",
        "properties": {"type": {"type": "string"}, "ts": _TIMESTAMP, "turn": {"type": "integer"}},
        "required": ["type", "ts", "turn"],
    }


def _response_line(name: str, payload: Schema, *, ok: bool, **more: Schema) -> Schema:
    properties = {
        "v": _VERSION,
        "id": {"description": "The command's; empty if it could not be read.", "type": "string"},
        "type": {"const": name},
        "payload": payload,
        "ok": {"const": ok},
        **more,
    }
    return _object(properties, list(properties), payload)


def _events() -> Schema:
    feature_types = {name: cls for name, (_, cls) in events.FEATURE_EVENTS.items()}
    parts, shared = _components({**events.EVENTS, **feature_types}, outgoing=True)
    _close_error_codes(parts["error"], shared)
    lines = {
        name: _feature_line(name, payload) if name in feature_types else _event_line(name, payload)
        for name, payload in parts.items()
    }
    return _document("events", "A line that tells what happens: it has no `ok`.", lines, shared)


def _event_line(name: str, payload: Schema) -> Schema:
    """A frozen event.  Only what names a run always counts; an earlier v1 wrote neither ``seq`` nor ``ts``."""
    seq = {"description": "Counts a run's events from 1, without a hole; the daemon's own events have none."}
    always = {"x-nous-always": True} if "run_id" in payload["required"] else {}
    properties = {
        "v": _VERSION,
        "id": _EVENT_ID,
        "type": {"const": name},
        "seq": {**seq, **always, "type": "integer", "minimum": 1},
        "ts": {**_TIMESTAMP, "x-nous-always": True},
        "payload": payload,
    }
    return _object(properties, ["v", "id", "type", "payload"], payload)


def _feature_line(name: str, payload: Schema) -> Schema:
    properties = {
        "v": _VERSION,
        "id": _EVENT_ID,
        "type": {"const": name},
        "after_seq": {"description": "The seq of the event it came after.", "type": "integer", "minimum": 0},
        "ts": _TIMESTAMP,
        "payload": payload,
    }
    return {**_object(properties, list(properties), payload), "x-feature": events.FEATURE_EVENTS[name][0]}


def _close_error_codes(error: Schema, shared: dict[str, Schema]) -> None:
    """Tie an object's ``code`` and ``category`` to the taxonomy."""
    shared["ErrorCode"] = {
        "type": "string",
        "enum": list(WIRE_CODES),
        "x-category": {code: info.category for code, info in WIRE_CODES.items()},
        "x-retryable": {code: info.category in RETRYABLE for code, info in WIRE_CODES.items()},
    }
    shared["ErrorCategory"] = {"type": "string", "enum": list(CATEGORIES)}
    for name, definition in (("code", "ErrorCode"), ("category", "ErrorCategory")):
        field = error["properties"][name]
        del field["type"]
        field["$ref"] = f"#/$defs/{definition}"


def _object(properties: dict[str, Schema], required: list[str], payload: Schema) -> Schema:
    """Return the schema of a line; what the struct says about itself is said of the line."""
    about = {"description": payload.pop("description")} if "description" in payload else {}
    return {**about, "type": "object", "properties": properties, "required": required}


def _document(name: str, about: str, lines: dict[str, Schema], shared: dict[str, Schema]) -> Schema:
    return {
        "$schema": DIALECT,
        "$id": f"urn:nous:protocol:v1:{name}",
        "title": f"nous protocol v1: {name}",
        "description": about,
        "oneOf": [{"$ref": f"#/$defs/{line}"} for line in lines],
        "$defs": {**lines, **shared},
    }


def _components(types: dict[str, Any], *, outgoing: bool) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """Return the schemas of the named structs, and those of the parts they share, tidied."""
    _, found = msgspec.json.schema_components(types.values(), ref_template="#/$defs/{name}")
    structs = {cls.__name__: cls for module in (messages, commands, responses, events) for cls in _structs(module)}
    for name, schema in found.items():
        _tidy(schema)
        if outgoing:
            _require_what_is_sent(schema, structs[name])
    parts = {name: found.pop(cls.__name__) for name, cls in types.items()}
    for part in parts.values():
        del part["title"]
    return parts, found


def _structs(module: ModuleType) -> list[type[Struct]]:
    return [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Struct)]


def _tidy(schema: Schema) -> None:
    """Make the text of docstrings one line, and leave out a keyword that is not JSON Schema's."""
    if isinstance(about := schema.get("description"), str):
        schema["description"] = " ".join(about.replace("``", "`").split())
    schema.pop("discriminator", None)
    items = [schema["items"]] if "items" in schema else []
    for child in (*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *items):
        _tidy(child)


def _require_what_is_sent(schema: Schema, cls: type[Struct]) -> None:
    """Require the fields the encoder always writes, but for those younger than the freeze; null is never sent."""
    always_written = not cls.__struct_config__.omit_defaults
    for field in msgspec.structs.fields(cls):
        name, property_ = field.encode_name, schema["properties"][field.encode_name]
        property_.pop("default", None)
        if not field.required and not always_written and "anyOf" in property_:
            _drop_null(property_)
        sent = field.required or (always_written and field.default is not UNSET)
        required = sent and "x-nous-always" not in property_
        if required != (name in schema["required"]):
            (schema["required"].append if required else schema["required"].remove)(name)


def _drop_null(property_: Schema) -> None:
    rest = [option for option in property_["anyOf"] if option != {"type": "null"}]
    if len(rest) == 1:
        del property_["anyOf"]
        property_.update(rest[0])
