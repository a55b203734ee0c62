"""Arguments against other people's schemas: nothing is fetched, nothing raises, what is wrong is said."""

from __future__ import annotations

from typing import Any

import pytest

from nous.schemas.evaluation import UnusableSchemaError, check_tool_schema, find_argument_fault

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/age"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"age": {"type": "integer", "minimum": 0}},
}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"name": "a"}, None),
        ({"name": "a", "age": 3}, None),
        ({}, "$: 'name' is a required property"),
        ({"name": 1}, "name: 1 is not of type 'string'"),
        ({"name": "a", "age": -1}, "age: -1 is less than the minimum of 0"),
        ({"name": "a", "more": 1}, "$: Additional properties are not allowed ('more' was unexpected)"),
    ],
)
def test_faults_are_said(arguments: dict[str, Any], fault: str | None) -> None:
    assert find_argument_fault(PERSON, arguments) == fault


def test_a_long_fault_is_bounded() -> None:
    fault = find_argument_fault(PERSON, {"name": list(range(10_000))})
    assert fault is not None
    assert len(fault) <= 500


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [{}, {"type": "string"}, {"type": "object", "properties": 5}, {"type": "object", "required": "a"}, deep(9999)],
)
def test_what_is_no_schema_of_an_object(schema: dict[str, Any]) -> None:
    with pytest.raises(UnusableSchemaError):
        check_tool_schema(schema)


@pytest.mark.parametrize(
    "reference", ["http://127.0.0.1:9/schema.json", "file:///etc/passwd", "#/$defs/nowhere", "other.json"]
)
def test_nothing_is_fetched(reference: str) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": reference}}}
    check_tool_schema(schema)
    assert find_argument_fault(schema, {"a": 1}) == "the tool's schema refers to something that is not part of it"


def test_a_schema_that_refers_to_itself_without_end() -> None:
    assert find_argument_fault({"type": "object", "$ref": "#"}, {}) == "they are nested too deeply"
