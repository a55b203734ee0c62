"""The one room that knows JSON Schema: whether a schema can be used, and whether an answer fits it.

Strict: an answer is one JSON value and nothing else, it is valid, and nothing is repaired.  What is found is said by
place and rule; never with the value, which is content.  The library is imported when the first schema comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from nous.errors import NousError, bound_text
from nous.protocol.codec import nests_too_deep

if TYPE_CHECKING:
    from jsonschema.exceptions import SchemaError, ValidationError
    from jsonschema.protocols import Validator

_PATH_BYTES: Final = 512
_RULE_BYTES: Final = 256
_NOT_SCHEMAS: Final = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose values are data: a ``$ref`` in there refers to nothing."""


def check_schema(schema: dict[str, Any]) -> None:
    """Check that ``schema`` is a schema of a dialect that is known, whole in itself.  Blocks; for a worker thread.

    Raises:
        NousError: ``invalid_payload``.
    """
    from jsonschema.exceptions import SchemaError

    try:
        _validator(schema).check_schema(schema)
    except SchemaError as error:
        place = bound_text(error.json_path, _PATH_BYTES)
        raise NousError("invalid_payload", f"output_schema: {place}: breaks {_rule(error)} of its dialect") from None
    except RecursionError:
        raise NousError("invalid_payload", "output_schema: nested too deeply") from None
    _check_references(schema)


def find_fault(schema: dict[str, Any], text: str) -> str | None:
    """Return what keeps ``text`` from being one JSON value that fits ``schema``: its JSON path first.

    None if nothing does.  Blocks; for a worker thread.
    """
    if nests_too_deep(text.encode("utf-8", "surrogatepass")):
        return "$: nested too deeply"
    try:
        value = json.loads(text, object_pairs_hook=_as_object, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return f"$: not JSON: {error.msg} (character {error.pos})"
    except (ValueError, RecursionError) as error:
        return f"$: not JSON: {bound_text(str(error), _RULE_BYTES)}"
    if _has_half_pair(text):
        return "$: not JSON: half of a surrogate pair"
    return _first_violation(schema, value)


def _first_violation(schema: dict[str, Any], value: Any) -> str | None:
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        error = best_match(_validator(schema).iter_errors(value))
    except RecursionError:
        return "$: the schema refers to itself without end"
    except Unresolvable:
        return "$: the schema refers to something that is not in it"
    if error is None:
        return None
    return f"{bound_text(error.json_path, _PATH_BYTES)}: breaks {_rule(error)} of the schema"


def _rule(error: ValidationError | SchemaError) -> str:
    """Return a rule by its place in the schema, with what it asks for where that is short and the schema's own."""
    place = "/".join(str(part) for part in error.absolute_schema_path)
    wanted = ""
    asked: Any = error.validator_value
    if error.validator == "required" and isinstance(error.instance, dict):
        missing = [str(name) for name in asked if name not in error.instance]
        wanted = f" (missing: {', '.join(missing)})"
    elif error.validator == "type":
        wanted = f" ({json.dumps(asked)})"
    return bound_text(f"{place}{wanted}", _RULE_BYTES)


def _validator(schema: dict[str, Any]) -> Validator:
    """Return a validator of the schema's own dialect (2020-12 if it names none) that fetches nothing from anywhere."""
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    named = schema.get("$schema", Draft202012Validator.META_SCHEMA["$schema"])
    found = validator_for({"$schema": str(named)}, default=Draft202012Validator)
    if str(found.META_SCHEMA["$schema"]).rstrip("#") != str(named).rstrip("#"):
        raise NousError("invalid_payload", "output_schema: $schema: a dialect that is not known")
    return found(schema, registry=Registry(), format_checker=found.FORMAT_CHECKER)


def _check_references(schema: dict[str, Any]) -> None:
    """Check that every reference leads to a place in the schema itself."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource = DRAFT202012.create_resource(schema)
    resolver = Registry().with_resource("", resource).resolver()
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except (Unresolvable, ValueError, LookupError):
            shown = bound_text(reference, _RULE_BYTES)
            raise NousError("invalid_payload", f"output_schema: $ref: {shown} is not in the schema") from None


def _references(schema: object) -> Iterator[str]:
    waiting: list[object] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            for name in ("$ref", "$dynamicRef", "$recursiveRef"):
                if isinstance(part.get(name), str):
                    yield part[name]
            waiting += [value for name, value in part.items() if name not in _NOT_SCHEMAS]
        elif isinstance(part, list):
            waiting += part


def _as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that stands twice in an object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _has_half_pair(text: str) -> bool:
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
