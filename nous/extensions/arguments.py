"""Arguments against a JSON Schema that an extension published.

Nothing a schema refers to is ever fetched: it has to be complete in itself.
"""

from __future__ import annotations

from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from nous.errors import bound_text

_MAX_REASON_BYTES: Final = 500


class InvalidSchemaError(Exception):
    """A tool's schema cannot be used; the text says why."""


def make_validator(schema: dict[str, Any]) -> Validator:
    """Return what checks arguments against ``schema``.

    Raises:
        InvalidSchemaError: it is no JSON Schema of an object.
    """
    if schema.get("type") != "object":
        raise InvalidSchemaError('its type is not "object"')
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise InvalidSchemaError(f"{error.json_path}: {bound_text(error.message, _MAX_REASON_BYTES)}") from None
    except RecursionError:
        raise InvalidSchemaError("it is nested too deeply") from None
    return Draft202012Validator(schema, registry=Registry())


def find_fault(validator: Validator, arguments: dict[str, Any]) -> str | None:
    """Say what is wrong with the arguments, in words a model can act on; ``None`` if nothing is."""
    try:
        error = best_match(validator.iter_errors(arguments))
    except Unresolvable:
        return "the tool's schema refers to something that is not part of it"
    except RecursionError:
        return "they are nested too deeply"
    if error is None:
        return None
    return bound_text(f"{error.json_path.removeprefix('$.')}: {error.message}", _MAX_REASON_BYTES)
