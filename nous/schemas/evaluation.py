"""Evaluates JSON Schemas and patterns that others wrote.  Blocking and unbounded: only the worker process calls it.

What does not fit an output schema is described by place and rule, never by value, because the value is content.
Nothing a schema refers to is ever fetched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from nous.errors import bound_text
from nous.protocol.codec import nests_too_deep

if TYPE_CHECKING:
    from jsonschema.exceptions import SchemaError, ValidationError
    from jsonschema.protocols import Validator

_PATH_BYTES: Final = 512
_RULE_BYTES: Final = 256
_REASON_BYTES: Final = 500
_NOT_SCHEMAS: Final = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose values are data: a ``$ref`` in there refers to nothing."""


class UnusableSchemaError(Exception):
    """A schema cannot be used.  The text says why, its JSON path first where there is one."""


def check_schema(schema: dict[str, Any]) -> None:
    """Check that ``schema`` conforms to a known dialect and that each of its references leads to a place in it.

    Raises:
        UnusableSchemaError: it does not.
    """
    _check_dialect(schema)
    _check_references(schema)


def check_tool_schema(schema: dict[str, Any]) -> None:
    """Check that ``schema`` conforms to a known dialect and describes an object.

    Raises:
        UnusableSchemaError: it does not.
    """
    if schema.get("type") != "object":
        raise UnusableSchemaError('$: its type is not "object"')
    _check_dialect(schema)


def find_argument_fault(schema: dict[str, Any], arguments: dict[str, Any]) -> str | None:
    """Return what keeps ``arguments`` from fitting a tool's schema, in words a model can act on; None if nothing."""
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        error = best_match(_validator(schema, asserts_formats=False).iter_errors(arguments))
    except Unresolvable:
        return "the tool's schema refers to something that is not part of it"
    except RecursionError:
        return "they are nested too deeply"
    if error is None:
        return None
    return bound_text(f"{error.json_path.removeprefix('$.')}: {error.message}", _REASON_BYTES)


def find_fault(schema: dict[str, Any], text: str) -> str | None:
    """Return what keeps ``text`` from being one JSON value that fits ``schema``: its JSON path first.

    None if nothing does.  The text is never repaired.
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


def _check_dialect(schema: dict[str, Any]) -> None:
    from jsonschema.exceptions import SchemaError

    _check_numbers(schema)
    try:
        _validator(schema).check_schema(schema)
    except SchemaError as error:
        raise UnusableSchemaError(
            f"{bound_text(error.json_path, _PATH_BYTES)}: breaks {_rule(error)} of its dialect"
        ) from None
    except RecursionError:
        raise UnusableSchemaError("$: nested too deeply") from None


def _check_numbers(schema: object) -> None:
    """Refuse numbers past the range of a double, such as 1e400: they were read as infinity."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, float) and not math.isfinite(part):
            raise UnusableSchemaError("$: holds a number that is too large")
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _validator(schema: dict[str, Any], *, asserts_formats: bool = True) -> Validator:
    """Return a validator of the schema's own dialect (2020-12 if it names none) that fetches nothing from anywhere."""
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    named = schema.get("$schema", Draft202012Validator.META_SCHEMA["$schema"])
    found = validator_for({"$schema": str(named)}, default=Draft202012Validator)
    if str(found.META_SCHEMA["$schema"]).rstrip("#") != str(named).rstrip("#"):
        raise UnusableSchemaError("$schema: a dialect that is not known")
    return found(schema, registry=Registry(), format_checker=found.FORMAT_CHECKER if asserts_formats else None)


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
            raise UnusableSchemaError(f"$ref: {shown} is not in the schema") from None


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
