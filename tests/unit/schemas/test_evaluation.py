"""Whether an answer fits a schema: what counts as JSON, what is said of what does not fit, which schemas are taken."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.schemas.evaluation import UnusableSchemaError, check_schema, find_fault

ANYTHING: dict[str, Any] = {}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}},
        "parent": {"$ref": "#"},
    },
    "required": ["name"],
    "additionalProperties": False,
}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([None, 2]))
def test_all_that_is_json_fits_a_schema_of_anything(value: object, indent: int | None) -> None:
    assert find_fault(ANYTHING, json.dumps(value, indent=indent)) is None
    assert find_fault(ANYTHING, " \n" + json.dumps(value, ensure_ascii=False) + "\t") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "```json\n{}\n```",
        "Here it is: {}",
        "{} and more",
        "{}{}",
        "{'a': 1}",
        '{"a": 1,}',
        "[1, 2",
        "NaN",
        "[Infinity]",
        "-Infinity",
        "\ufeff{}",
        "01",
        "True",
        '"\n"',
        '"\\x"',
        "9" * 5000,
    ],
)
def test_what_is_no_plain_json_never_fits_and_is_never_repaired(text: str) -> None:
    fault = find_fault(ANYTHING, text)
    assert fault is not None
    assert fault.startswith("$: not JSON")


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udc00": 1}', '["\\ud83d\\u0041"]', '"\ud800"'])
def test_half_of_a_pair_never_fits(text: str) -> None:
    assert find_fault(ANYTHING, text) is not None


def test_a_whole_pair_fits() -> None:
    assert find_fault(ANYTHING, '"\\ud83d\\ude00"') is None


def test_a_key_that_stands_twice_never_fits() -> None:
    assert find_fault(ANYTHING, '{"a": {"b": 1, "b": 1}}') == "$: not JSON: a key that stands twice in an object"


def test_what_is_nested_too_deeply_never_fits() -> None:
    assert find_fault(ANYTHING, "[" * 64 + "]" * 64) is None
    for depth in (65, 1_000_000):
        assert find_fault(ANYTHING, "[" * depth + "]" * depth) == "$: nested too deeply"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"name": "a", "parent": {"name": "b", "tags": ["c"]}}', None),
        ("{}", "$: breaks required (missing: name) of the schema"),
        ('{"name": 1}', '$.name: breaks properties/name/type ("string") of the schema'),
        ('{"name": "a", "secret": 1}', "$: breaks additionalProperties of the schema"),
        ('{"name": "a", "tags": ["b", "secret"]}', "$.tags[1]: breaks properties/tags/items/maxLength of the schema"),
        ("[]", '$: breaks type ("object") of the schema'),
    ],
)
def test_what_does_not_fit_is_named_by_place_and_rule_never_by_value(text: str, fault: str | None) -> None:
    assert find_fault(PERSON, text) == fault


def test_a_fault_is_bounded() -> None:
    schema = {"additionalProperties": {"type": "object", "required": ["r" * 5000], "additionalProperties": False}}
    fault = find_fault(schema, json.dumps({"k" * 5000: {}}))
    assert fault is not None
    assert len(fault) < 900


def test_formats_are_asserted() -> None:
    assert find_fault({"format": "ipv4"}, '"127.0.0.1"') is None
    assert find_fault({"format": "ipv4"}, '"localhost"') is not None


@pytest.mark.parametrize(
    "schema",
    [
        ANYTHING,
        PERSON,
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
        {"enum": [{"$ref": "nowhere"}], "const": {"$ref": "nowhere"}},
        {"$defs": {"a": {"$anchor": "there"}}, "$ref": "#there"},
        {"properties": {"$ref": {"type": "string"}}},
    ],
)
def test_schemas_that_are_taken(schema: dict[str, Any]) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "cause"),
    [
        ({"type": "thing"}, r"\$\.type: breaks"),
        ({"properties": []}, r"\$\.properties: breaks"),
        ({"pattern": "("}, r"\$\.pattern: breaks"),
        ({"$schema": "https://example.org/mine"}, r"\$schema: a dialect that is not known"),
        ({"$schema": 7}, r"\$schema: a dialect that is not known"),
        ({"$ref": "#/$defs/a"}, r"\$ref: #/\$defs/a is not in the schema"),
        ({"$ref": "https://example.org/a"}, r"\$ref: https://example.org/a is not in the schema"),
        ({"$ref": "file:///etc/passwd"}, r"\$ref: .* is not in the schema"),
        ({"multipleOf": 1e400}, r"\$: holds a number that is too large"),
        ({"enum": [{"a": [-1e400]}]}, r"\$: holds a number that is too large"),
        ({"items": {"$dynamicRef": "#nobody"}}, r"\$ref: #nobody is not in the schema"),
    ],
)
def test_schemas_that_are_refused(schema: dict[str, Any], cause: str) -> None:
    with pytest.raises(UnusableSchemaError, match=cause):
        check_schema(schema)


def test_a_schema_that_only_refers_to_itself_never_fits() -> None:
    schema = {"$ref": "#"}
    check_schema(schema)
    assert find_fault(schema, "1") == "$: the schema refers to itself without end"


def test_the_library_is_imported_by_nothing_that_only_serves() -> None:
    program = "import sys, nous.cli.serve; sys.exit('jsonschema' in sys.modules or 'referencing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
