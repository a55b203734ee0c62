"""Structured output in each vendor's words: the schema itself where it is enforced, else words that hold it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nous.providers.output import is_closed
from nous.providers.presets import PRESETS
from tests.support.vendor_requests import READ, body_of, request, user
from tests.support.vendor_streams import adapter_of

CLOSED: dict[str, Any] = {
    "type": "object",
    "properties": {"names": {"type": "array", "items": {"type": "string"}}, "age": {"anyOf": [{"type": "null"}, {}]}},
    "required": ["age", "names"],
    "additionalProperties": False,
}
OPEN: dict[str, Any] = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}}
LIST: dict[str, Any] = {"type": "array"}
CHAT = [name for name, preset in PRESETS.items() if preset.dialect == "chat"]
JSON_MODE = ["deepseek", "kimi"]


def asked(vendor: str, schema: dict[str, Any] | None, *, tools: bool = False, **settings: object) -> dict[str, Any]:
    tools_offered = (READ,) if tools else ()
    return body_of(
        adapter_of(vendor, **settings), request(user(), system="Be nous.", tools=tools_offered, output_schema=schema)
    )


def words_for(schema: dict[str, Any]) -> str:
    return json.dumps(schema, separators=(",", ":"))


def has_words(body: dict[str, Any], schema: dict[str, Any]) -> bool:
    text = json.dumps({key: body.get(key) for key in ("messages", "system", "instructions", "systemInstruction")})
    assert "Be nous." in text
    assert ("code fence" in text) == (json.dumps(words_for(schema))[1:-1] in text)
    return "code fence" in text


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        (CLOSED, True),
        ({"enum": ["a", 1]}, True),
        ({}, True),
        (OPEN, False),
        ({"type": "string", "pattern": "a"}, False),
        ({"type": "object"}, False),
        ({"type": "object", "additionalProperties": False}, True),
        ({**CLOSED, "required": ["age"]}, False),
        ({**CLOSED, "additionalProperties": {}}, False),
        ({**CLOSED, "properties": {"names": OPEN, "age": {}}}, False),
        ({"anyOf": [CLOSED, OPEN]}, False),
        ({"type": "array", "items": OPEN}, False),
        ({"type": "array", "items": CLOSED}, True),
        ({"items": True}, False),
        ({"$ref": "#"}, False),
    ],
)
def test_which_schemas_can_be_enforced(schema: dict[str, Any], closed: bool) -> None:
    assert is_closed(schema) is closed


@pytest.mark.parametrize("vendor", sorted(PRESETS))
def test_without_a_schema_nothing_is_different(vendor: str) -> None:
    body = asked(vendor, None, tools=True)
    assert not body.keys() & {"response_format", "text", "output_config"}
    assert "code fence" not in json.dumps(body)


@pytest.mark.parametrize("vendor", [name for name in CHAT if name not in JSON_MODE])
def test_chat(vendor: str) -> None:
    for schema, strict in ((CLOSED, True), (OPEN, False)):
        body = asked(vendor, schema)
        form = {"name": "output", "schema": schema, "strict": strict}
        assert body["response_format"] == {"type": "json_schema", "json_schema": form}
        assert has_words(body, schema) is not strict
    body = asked(vendor, LIST)
    assert ("response_format" in body, has_words(body, LIST)) == (False, True)


@pytest.mark.parametrize("vendor", JSON_MODE)
def test_vendors_that_only_know_that_it_is_to_be_json(vendor: str) -> None:
    for schema in (CLOSED, OPEN):
        body = asked(vendor, schema)
        assert body["response_format"] == {"type": "json_object"}
        assert has_words(body, schema)
        assert "JSON" in body["messages"][0]["content"]
    assert "response_format" not in asked(vendor, LIST)


def test_responses() -> None:
    for schema, strict in ((CLOSED, True), (OPEN, False)):
        body = asked("openai-responses", schema)
        form = {"type": "json_schema", "name": "output", "schema": schema, "strict": strict}
        assert body["text"] == {"format": form}
        assert has_words(body, schema) is not strict
    assert ("text" in asked("openai-responses", LIST), has_words(asked("openai-responses", LIST), LIST)) == (
        False,
        True,
    )


def test_anthropic_is_sent_what_it_can_enforce_beside_how_much_to_think() -> None:
    body = asked("anthropic", CLOSED, thinking="high")
    assert body["output_config"] == {"effort": "high", "format": {"type": "json_schema", "schema": CLOSED}}
    assert not has_words(body, CLOSED)
    for schema in (OPEN, LIST):
        body = asked("anthropic", schema)
        assert ("output_config" in body, has_words(body, schema)) == (False, True)


def test_gemini_is_sent_any_schema_but_not_together_with_tools() -> None:
    for schema in (CLOSED, OPEN, LIST):
        body = asked("gemini", schema, max_output_tokens=9)
        assert body["generationConfig"] == {
            "maxOutputTokens": 9,
            "responseMimeType": "application/json",
            "responseJsonSchema": schema,
        }
        assert not has_words(body, schema)
        body = asked("gemini", schema, tools=True)
        assert ("generationConfig" in body, has_words(body, schema)) == (False, True)


@pytest.mark.parametrize("vendor", sorted(PRESETS))
def test_the_next_request_without_a_schema_is_as_ever(vendor: str) -> None:
    adapter = adapter_of(vendor)
    plain = request(user())
    before = adapter.build(plain).body
    with_schema = request(user(), output_schema=CLOSED)
    assert adapter.build(with_schema).body != before
    assert adapter.build(plain).body == before
