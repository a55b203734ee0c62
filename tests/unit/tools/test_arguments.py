"""Arguments: what models call things, what is forgiven, what is not and how that is said."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from msgspec import UNSET, Meta, Struct, UnsetType

from nous.tools.arguments import ALIASES, InvalidArgumentsError, decode_arguments, schema_of


class Shape(Struct, frozen=True, forbid_unknown_fields=True):
    path: Annotated[str, Meta(min_length=1, description="Where.")]
    limit: Annotated[int, Meta(ge=1, le=100, description="How many.")] = 10
    ignore_case: bool = False
    kind: Literal["file", "directory"] = "file"
    glob: str | UnsetType = UNSET


def decode(**arguments: Any) -> Shape:
    return decode_arguments("tool", arguments, Shape)


@pytest.mark.parametrize("name", ["path", "file_path", "filePath", "FilePath", "filepath", "file", "filename"])
def test_other_names_of_the_path(name: str) -> None:
    assert decode(**{name: "a"}) == Shape("a")


@pytest.mark.parametrize("name", ["ignore_case", "ignoreCase", "case_insensitive", "caseInsensitive"])
def test_camel_case_and_aliases_together(name: str) -> None:
    assert decode(path="a", **{name: True}).ignore_case


@pytest.mark.parametrize("value", [5, "5", 5.0])
def test_numbers_in_any_dress(value: object) -> None:
    assert decode(path="a", limit=value).limit == 5


@pytest.mark.parametrize("value", [True, "true", 1])
def test_truth_in_any_dress(value: object) -> None:
    assert decode(path="a", ignore_case=value).ignore_case


def test_null_is_not_given() -> None:
    assert decode(path="a", limit=None, glob=None) == Shape("a")


def test_the_same_thing_said_twice() -> None:
    assert decode(path="a", file_path="a") == Shape("a")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "missing required field `path`"),
        ({"path": None}, "missing required field `path`"),
        ({"path": ""}, "`path`"),
        ({"path": 5}, "Expected `str`, got `int` - at `path`"),
        ({"path": "a", "limit": "many"}, "Expected `int`, got `str` - at `limit`"),
        ({"path": "a", "limit": 0}, "Expected `int` >= 1 - at `limit`"),
        ({"path": "a", "limit": 101}, "Expected `int` <= 100 - at `limit`"),
        ({"path": "a", "limit": True}, "Expected `int`, got `bool` - at `limit`"),
        ({"path": "a", "limit": 5.5}, "Expected `int`, got `float` - at `limit`"),
        ({"path": "a", "kind": "link"}, "'link' - at `kind`"),
        ({"path": "a", "paths": ["b"]}, "unknown field `paths`"),
        ({"path": "a", "file_path": "b"}, "`path` is given twice, as file_path too"),
    ],
)
def test_what_is_wrong_is_named_and_what_is_right(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgumentsError) as error:
        decode(**arguments)
    assert said in str(error.value)
    assert "tool takes path (string, required); limit (integer >= 1 <= 100, optional)" in str(error.value)
    assert "kind (directory or file, optional)" in str(error.value)


def test_the_text_is_bounded_whatever_was_given() -> None:
    with pytest.raises(InvalidArgumentsError) as error:
        decode(path="a", **{"x" * 1_000_000: 1})
    assert len(str(error.value)) < 1000


@given(
    st.dictionaries(
        st.sampled_from(["path", "filePath", "limit", "max", "kind", "glob", "?"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()) | st.just({}),
    )
)
def test_any_object_is_arguments_or_one_named_error(arguments: dict[str, Any]) -> None:
    try:
        decoded = decode_arguments("tool", arguments, Shape)
    except InvalidArgumentsError:
        return
    assert isinstance(decoded, Shape)
    assert 1 <= decoded.limit <= 100


def test_no_alias_is_a_published_name_and_each_leads_to_one() -> None:
    assert not set(ALIASES) & set(ALIASES.values())


def test_the_schema_is_one_plain_object() -> None:
    schema = schema_of(Shape)
    Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert schema["required"] == ["path"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["limit"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 100,
        "default": 10,
        "description": "How many.",
    }
    assert schema["properties"]["glob"] == {"type": "string"}
    assert "$" not in str(schema)
