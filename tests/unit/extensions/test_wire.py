"""The host protocol's lines: any bytes give a line or one named error."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.extensions.schema import host_schema
from nous.extensions.wire import (
    CallLine,
    Cancel,
    HelloLine,
    LogLine,
    Progress,
    ProtocolError,
    ResultLine,
    ToolDeclaration,
    decode_child_line,
    encode_host_line,
)


def test_lines_of_a_child() -> None:
    hello = decode_child_line(
        b'{"type":"hello","protocol":"1","name":"n","version":"2","future":1,'
        b'"tools":[{"name":"t","description":"d","schema":{"type":"object"}}],"hooks":["input"]}'
    )
    tool = ToolDeclaration("t", "d", {"type": "object"})
    assert hello == HelloLine(protocol="1", name="n", version="2", tools=(tool,), hooks=("input",))
    assert decode_child_line(b'{"type":"result","id":"1"}') == ResultLine("1")
    assert decode_child_line(b'{"type":"result","id":"1","error":"e"}') == ResultLine("1", error="e")
    assert decode_child_line(b'{"type":"progress","id":"1","text":"t"}') == Progress("1", "t")
    assert decode_child_line(b'{"type":"log","message":"m"}') == LogLine("m")


def test_lines_to_a_child_begin_with_type_and_id() -> None:
    call = encode_host_line(CallLine("7", "hook", "input", {"text": "a\nb\u2028"}, {"run_id": "r"}, 5))
    assert call.startswith(b'{"type":"call","id":"7","kind":"hook","name":"input",')
    assert call.count(b"\n") == 1
    assert json.loads(call)["input"] == {"text": "a\nb\u2028"}
    assert encode_host_line(Cancel("7", "timeout")) == b'{"type":"cancel","id":"7","reason":"timeout"}\n'


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"type":"call","id":"1"}',
        b'{"type":"result"}',
        b'{"type":"result","id":1}',
        b'{"type":"result","id":"1","value":[]}',
        b'{"type":"hello","protocol":"2","name":"n","version":"1"}',
        b'{"type":"hello","protocol":"1","name":"n","version":"1","hooks":["nonsense"]}',
        b'{"type":"hello","protocol":"1","name":"n","version":"1",'
        b'"tools":[{"name":"a b","description":"","schema":{}}]}',
        b'{"type":"log","message":"m","level":"loud"}',
        b'{"type":"log","message":"\xff"}',
        b'{"type":"result","id":"1","value":' + b"[" * 100_000,
    ],
)
def test_what_is_no_line(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_child_line(line)


SCHEMA = host_schema()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("hello", {"type": "hello", "protocol": "1", "name": "n", "version": "2", "hooks": ["input"]}),
        ("result", {"type": "result", "id": "1", "value": {}}),
        ("progress", {"type": "progress", "id": "1", "text": "t"}),
        ("log", {"type": "log", "message": "m"}),
        ("call", json.loads(encode_host_line(CallLine("7", "tool", "t", {}, {}, 5)))),
        ("cancel", json.loads(encode_host_line(Cancel("7", "aborted")))),
        ("answer_tool", {"text": "t", "is_error": True}),
        ("answer_tool_call", {"block": "no"}),
        ("answer_input", {"text": "t", "handled": True}),
        ("answer_session_before_fork", {"cancel": "no"}),
    ],
)
def test_the_schema_says_the_same(name: str, line: dict[str, object]) -> None:
    validator = jsonschema.Draft202012Validator({**SCHEMA, "oneOf": [{"$ref": f"#/$defs/{name}"}]})
    validator.validate(line)
    assert not validator.is_valid({**line, "type": "other"})
    if not name.startswith("answer"):
        decoded = [
            kind
            for kind in SCHEMA["oneOf"]
            if jsonschema.Draft202012Validator({**SCHEMA, "oneOf": [kind]}).is_valid(line)
        ]
        assert decoded == [{"$ref": f"#/$defs/{name}"}]


@given(st.binary())
def test_any_bytes(line: bytes) -> None:
    try:
        decode_child_line(line)
    except ProtocolError as error:
        assert len(str(error)) <= 300  # noqa: PT017
