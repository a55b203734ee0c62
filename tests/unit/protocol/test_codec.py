"""A line to a command: every row of protocol v1, sections 1, 2 and 8."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from nous.protocol.codec import (
    DEFAULT_MAX_LINE_BYTES,
    MAX_DEPTH,
    Refused,
    decode_command,
    field_cause,
    nests_too_deep,
)
from nous.protocol.commands import COMMANDS, MAX_ID_CHARACTERS, Abort, BranchSession, Command, Image, Ping, Prompt

PING = b'{"id":"c1","type":"ping"}'


def refusal(line: bytes | str, *, strict: bool = False) -> tuple[str, str, str | None]:
    """Return id, code and cause of a line that must be refused."""
    result = decode_command(line.encode() if isinstance(line, str) else line, strict=strict)
    assert isinstance(result, Refused), result
    return result.id, result.error.code, result.error.cause


def accepted(line: bytes | str, *, strict: bool = False) -> Command:
    result = decode_command(line.encode() if isinstance(line, str) else line, strict=strict)
    assert isinstance(result, Command), result
    return result


def envelope(**fields: Any) -> str:
    return json.dumps({"id": "c1", "type": "ping", **fields})


def raw(**fields: str) -> str:
    """Return an envelope whose values are JSON as given; ``id`` and ``type`` are those of a ping unless named."""
    members = {"id": '"c1"', "type": '"ping"', **fields}
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"


# --- one line: what is no command at all


@pytest.mark.parametrize(
    "line",
    [
        b"\xff",
        b'{"id":"c1","type":"ping","meta":"\xff"}',
        b'{"id":"c1","type":"ping","meta":"\xed\xa0\x80"}',  # a surrogate in UTF-8's clothes
        b'{"id":"c1","type":"ping","meta":"\xc0\xaf"}',  # longer than need be
        b'{"id":"c1","type":"ping","meta":"\xf4\x90\x80\x80"}',  # past U+10FFFF
        b'{"id":"c1","type":"ping","meta":"\xe2\x82"}',
    ],
)
def test_invalid_utf8(line: bytes) -> None:
    assert refusal(line) == ("", "invalid_command", "invalid_utf8")


@pytest.mark.parametrize(
    "line",
    [
        "hello",
        "{",
        "}",
        "{]",
        "[1,",
        '"abc',
        "tru",
        "01",
        PING.decode() + " {}",
        PING.decode() + ",",
        PING.decode() + "\x00",
        "\ufeff" + PING.decode(),
        "\x0b" + PING.decode(),
        "\u00a0" + PING.decode(),
        "{'id':'c1','type':'ping'}",
        '{id:"c1",type:"ping"}',
        '{"id":"c1","type":"ping",}',
        '{"id":"c1" "type":"ping"}',
        '{"id":"c1","type":"ping","meta":NaN}',
        '{"id":"c1","type":"ping","meta":-Infinity}',
        '{"id":"c1","type":"ping","meta":01}',
        '{"id":"c1","type":"ping","meta":1.}',
        '{"id":"c1","type":"ping","meta":[1,]}',
        '{"id":"c1","type":"ping","meta":"\t"}',
        '{"id":"c1","type":"ping","meta":"\x01"}',
        '{"id":"c1","type":"ping","meta":"\\q"}',
        '{"id":"c1","type":"ping","meta":"\\u12"}',
        '{"id":"c1","type":"ping","meta":"\\ud800"}',
        '{"id":"c1","type":"ping","payload":{"\\udc00":1}}',
        '{"id":"c1","type":"ping","\\ud800":1}',
        '{"id":"\\ud800","type":"ping"}',
        '{"id":"c1","type":"ping"} // a comment',
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_invalid_json(line: str, strict: bool) -> None:
    assert refusal(line, strict=strict) == ("", "invalid_command", "invalid_json")


@pytest.mark.parametrize("line", ["[]", "[1]", '"text"', "1", "-1.5e3", "true", "null", " [ ] ", '[{"id":"c1"}]'])
def test_not_an_object(line: str) -> None:
    assert refusal(line) == ("", "invalid_command", "not_an_object")


# --- nesting


def nested(depth: int) -> str:
    """Return a ping whose deepest bracket, the envelope's own counted, stands at ``depth``."""
    return raw(meta="[" * (depth - 1) + "]" * (depth - 1))


def test_64_levels_are_allowed_and_65_are_not() -> None:
    assert MAX_DEPTH == 64
    assert accepted(nested(64)).payload == Ping()
    assert refusal(nested(65)) == ("c1", "invalid_command", "too_deep")


def test_objects_nest_as_arrays_do() -> None:
    assert accepted(raw(meta='{"a":' * 62 + "{}" + "}" * 62)).payload == Ping()
    assert refusal(raw(meta='{"a":' * 63 + "{}" + "}" * 63)) == ("c1", "invalid_command", "too_deep")


def test_a_payload_may_not_be_deeper_either() -> None:
    schema = "[" * 62 + "]" * 62
    for nesting, fits in ((schema[1:-1], True), (schema, False)):
        line = raw(type='"prompt"', payload='{"text":"t","output_schema":{"a":' + nesting + "}}")
        assert isinstance(decode_command(line.encode()), Command) == fits


def test_brackets_in_strings_do_not_nest() -> None:
    text = "[{" * 1000 + '\\"' + "[" * 100 + "\\\\"
    assert accepted(raw(type='"prompt"', payload=f'{{"text":"{text}"}}')).type == "prompt"
    assert accepted(raw(id='"' + "[" * 100 + '"')).id == "[" * 100
    assert accepted(raw(**{"{" * 100: "1"})).id == "c1"


def test_siblings_do_not_nest() -> None:
    assert accepted(raw(meta="[" + "[],{}," * 1000 + "[]]")).payload == Ping()


@pytest.mark.parametrize("line", ["[" * 65, "[" * 100_000, '{"a":' * 100_000, "[" * 65 + "}" * 65])
def test_any_depth_is_refused_without_a_crash(line: str) -> None:
    assert refusal(line) == ("", "invalid_command", "too_deep")
    assert nests_too_deep(line.encode())


@pytest.mark.parametrize(
    ("before", "after", "command_id"),
    [
        ('"id":"c1",', "", "c1"),
        ("", ',"id":"c1"', "c1"),
        ('"i\\u0064":"c\\u0031",', "", "c1"),
        ('"x":"id","id" : "c1",', "", "c1"),
        ('"x":{"id":"no"},', "", ""),
        ('"id":["no"],', "", ""),
        ('"id":5,"x":"no",', "", ""),
        ('"id":"\\ud800",', "", ""),
    ],
)
def test_the_id_is_read_even_from_a_line_too_deep(before: str, after: str, command_id: str) -> None:
    line = "{" + before + '"meta":' + "[" * 70 + "]" * 70 + after + "}"
    assert refusal(line) == (command_id, "invalid_command", "too_deep")


def test_a_string_without_an_end_is_scanned_once() -> None:
    """Each escaped quote once began a scan to the end of the line: 8 MiB of them would have taken a day."""
    line = b'{"id":"' + b'\\"' * (DEFAULT_MAX_LINE_BYTES // 2 - 10)
    assert refusal(line) == ("", "invalid_command", "invalid_json")


# --- duplicate keys


@pytest.mark.parametrize(
    "line",
    [
        '{"id":"c1","type":"ping","id":"c1"}',
        '{"id":"c1","type":"ping","type":"abort"}',
        '{"id":"c1","type":"ping","payload":{},"payload":{}}',
        '{"id":"c1","type":"ping","unknown":1,"unknown":2}',
        '{"id":"c1","type":"ping","":1,"":2}',
        '{"id":"c1","type":"ping","t\\u0079pe":"abort"}',
        '{"id":"c1","type":"ping","\\u0061":1,"a" :2}',
        '{"id":"c1","type":"ping","\\/":1,"/":2}',
        '{"id":"c1","type":"ping","\\ud83d\\ude00":1,"\U0001f600":2}',
        '{"v":"2","id":"c1","v":"1"}',
    ],
)
def test_a_key_may_stand_in_the_envelope_once(line: str) -> None:
    assert refusal(line) == ("c1", "invalid_command", "duplicate_key")


@pytest.mark.parametrize(
    "line",
    [
        '{"id":"c1","type":"ping","meta":{"a":1,"a":2}}',
        '{"id":"c1","type":"ping","payload":{"id":1,"type":2,"payload":3}}',
        '{"id":"c1","type":"ping","meta":["id","id","id"]}',
        '{"id":"c1","type":"ping","Id":1,"ID":2}',
        '{"id":"c1","type":"ping","meta":"id","x":"id"}',
        '{"id":"c1","type":"ping","x":"\\"id\\":1,\\"id\\":2"}',
    ],
)
def test_keys_elsewhere_are_not_the_envelope_s(line: str) -> None:
    assert accepted(line).id == "c1"


def test_a_key_twice_in_a_payload_is_allowed_and_the_last_one_counts() -> None:
    command = accepted('{"id":"c1","type":"prompt","payload":{"text":"a","text":"b"}}')
    assert command.payload == Prompt(text="b")


# --- the envelope


@pytest.mark.parametrize("version", ['"1"', "1", '"\\u0031"'])
def test_version_1_is_spoken(version: str) -> None:
    assert accepted(raw(v=version)).payload == Ping()


def test_a_missing_version_means_1() -> None:
    assert accepted(PING).payload == Ping()
    assert accepted(raw(v='""')).payload == Ping()


@pytest.mark.parametrize(
    "version", ["2", '"2"', "1.0", "1e0", "10e-1", "-1", "true", "null", '" 1"', '"01"', '["1"]', "{}", '"1.0"']
)
def test_any_other_version_is_refused(version: str) -> None:
    assert refusal(raw(v=version)) == ("c1", "invalid_command", "invalid_version")


@pytest.mark.parametrize("kind", ["ping", "nobody"])
def test_an_id_too_long_to_be_echoed_is_refused(kind: str) -> None:
    line = raw(id=msgspec.json.encode("x" * (MAX_ID_CHARACTERS + 1)).decode(), type=f'"{kind}"')
    assert refusal(line) == ("", "invalid_payload", f"id: longer than {MAX_ID_CHARACTERS} characters")


@pytest.mark.parametrize("command_id", ["1", "null", "true", '""', "[]", '{"id":"c1"}'])
def test_an_id_is_a_string_that_is_not_empty(command_id: str) -> None:
    assert refusal(raw(id=command_id)) == ("", "invalid_command", "missing_id")


def test_an_id_must_be_there() -> None:
    assert refusal('{"type":"ping"}') == ("", "invalid_command", "missing_id")
    assert refusal("{}") == ("", "invalid_command", "missing_id")


@pytest.mark.parametrize(
    "command_id", [" ", "c 1", "\u00e9\U0001f600", "\x00\n\t", '"', "../../etc", "\U0001f600" * MAX_ID_CHARACTERS]
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_id_is_any_text(command_id: str, ascii_only: bool) -> None:
    line = json.dumps({"id": command_id, "type": "ping"}, ensure_ascii=ascii_only)
    assert accepted(line).id == command_id


@pytest.mark.parametrize("kind", ["1", "null", "false", '""', '["ping"]', '{"ping":1}'])
def test_a_type_is_a_string_that_is_not_empty(kind: str) -> None:
    assert refusal(raw(type=kind)) == ("c1", "invalid_command", "missing_type")


def test_a_type_must_be_there() -> None:
    assert refusal('{"id":"c1"}') == ("c1", "invalid_command", "missing_type")


@pytest.mark.parametrize("kind", ["pong", "Ping", "ping ", "error", "__class__", "agent_start"])
def test_an_unknown_type_is_refused(kind: str) -> None:
    assert refusal(envelope(type=kind)) == ("c1", "invalid_command", "unknown_command")


def test_a_type_may_be_escaped() -> None:
    assert accepted('{"id":"c1","type":"p\\u0069ng"}').type == "ping"


def test_what_comes_first_is_what_is_said() -> None:
    assert refusal('{"v":"2","id":"","type":"nothing"}')[2] == "invalid_version"
    assert refusal('{"id":"","type":"nothing"}')[2] == "missing_id"


@pytest.mark.parametrize("value", ["null", "1", '"x"', "[[]]", '{"a":{"b":1}}'])
def test_ts_meta_and_unknown_fields_are_ignored(value: str) -> None:
    assert accepted(raw(ts=value, meta=value, unknown=value)).payload == Ping()


def test_white_space_between_tokens_is_free() -> None:
    assert accepted(' \t{ "id"\t:\r"c1" , "type" : "ping" , "payload" : { } } \r').payload == Ping()


# --- the payload


def test_a_missing_payload_is_an_empty_one() -> None:
    for line in ('{"id":"c1","type":"abort"}', '{"id":"c1","type":"abort","payload": null }'):
        assert accepted(line) == Command("c1", Abort(), b"{}")
    assert refusal('{"id":"c1","type":"steer","payload":null}')[1:] == ("invalid_payload", "text: required")


def test_a_command_keeps_the_bytes_of_its_payload() -> None:
    assert accepted('{"id":"c1","type":"abort","payload": { "run_id" : "r" } }').raw_payload == b'{ "run_id" : "r" }'


@pytest.mark.parametrize("payload", ["[]", "1", '"x"', "true"])
@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("strict", [False, True])
def test_a_payload_is_an_object(payload: str, kind: str, strict: bool) -> None:
    command_id, code, cause = refusal(raw(type=f'"{kind}"', payload=payload), strict=strict)
    assert (command_id, code) == ("c1", "invalid_payload")
    assert cause is not None
    assert cause.startswith("payload: ")


@pytest.mark.parametrize(
    ("kind", "payload", "cause"),
    [
        ("prompt", {}, "text: required"),
        ("prompt", {"text": 1}, "text: Expected `str`, got `int`"),
        ("prompt", {"text": None}, "text: Expected `str`, got `null`"),
        ("prompt", {"text": ""}, "text: Expected `str` of length >= 1"),
        ("prompt", {"text": "t", "wait": "yes"}, "wait: Expected `bool | null`, got `str`"),
        ("prompt", {"text": "t", "images": [{"data": ""}]}, "images[0].mime_type: required"),
        (
            "prompt",
            {"text": "t", "images": [{"mime_type": "m", "data": 1}]},
            "images[0].data: Expected `str`, got `int`",
        ),
        ("steer", {}, "text: required"),
        ("set_active_tools", {"tools": "read"}, "tools: Expected `array`, got `str`"),
        ("set_active_tools", {"tools": ["read", 2]}, "tools[1]: Expected `str`, got `int`"),
        ("set_steering_mode", {"mode": "secret"}, "mode: not one of the allowed values"),
        ("set_leaf", {}, "leaf_id: required"),
        ("branch_session", {}, "session_id: required"),
        ("branch_session", {"session_id": None, "leaf_id": "e"}, "session_id: required"),
        ("get_events", {"run_id": "r", "limit": 0}, "limit: Expected `int` >= 1"),
        ("hello", {"client": {"name": 1}}, "client.name: Expected `str | null`, got `int`"),
        ("export_trace", {"run_id": "r", "format": "zip"}, "format: not one of the allowed values"),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_the_cause_names_the_field(kind: str, payload: dict[str, Any], cause: str, strict: bool) -> None:
    line = envelope(type=kind, payload=payload)
    assert refusal(line, strict=strict) == ("c1", "invalid_payload", cause)


def test_a_number_of_any_length_is_at_most_refused() -> None:
    assert accepted(raw(meta="9" * 5000)).id == "c1"
    assert accepted(raw(meta="1e999")).id == "c1"
    line = raw(type='"get_events"', payload='{"run_id":"r","limit":' + "9" * 5000 + "}")
    assert refusal(line) == ("c1", "invalid_payload", "limit: Integer value out of range")


def test_no_value_of_the_input_stands_in_a_cause() -> None:
    secret = "sk-very-secret"
    for payload in ({"text": "t", "wait": secret}, {"text": [secret]}, {"text": "t", "output_schema": secret}):
        assert secret not in str(refusal(envelope(type="prompt", payload=payload)))
    assert secret not in str(refusal(envelope(type="set_follow_up_mode", payload={"mode": secret})))


def test_field_cause_without_a_path_speaks_of_the_payload() -> None:
    assert field_cause(msgspec.ValidationError("Expected `object`")) == "payload: Expected `object`"


def test_null_means_left_out() -> None:
    line = envelope(type="prompt", payload={"text": "t", "wait": None, "session_id": None, "images": None})
    assert accepted(line).payload == Prompt(text="t")


def test_an_optional_id_that_is_empty_means_left_out() -> None:
    ids = {"session_id": "", "leaf_id": ""}
    assert accepted(envelope(type="prompt", payload={"text": "t", **ids})).payload == Prompt(text="t")
    assert accepted(envelope(type="abort", payload={"run_id": ""})).payload == Abort()
    old = accepted(envelope(type="branch_session", payload={"session_id": "", "parent_id": "s"})).payload
    assert old == BranchSession(parent_id="s")
    assert refusal(envelope(type="branch_session", payload=ids))[1:] == ("invalid_payload", "session_id: required")


def test_the_old_name_of_a_branch_s_source_still_counts() -> None:
    old = accepted(envelope(type="branch_session", payload={"parent_id": "s"})).payload
    assert isinstance(old, BranchSession)
    assert old.source_id == "s"
    both = accepted(envelope(type="branch_session", payload={"parent_id": "s", "session_id": "n"})).payload
    assert isinstance(both, BranchSession)
    assert both.source_id == "n"


# --- strict


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (envelope(extra=1), "extra: unknown field of the envelope"),
        (envelope(payload={"extra": 1}), "extra: unknown field"),
        (envelope(type="prompt", payload={"text": "t", "Wait": True}), "Wait: unknown field"),
        (envelope(type="prompt", payload={"txet": "t"}), "txet: unknown field"),
    ],
)
def test_strict_refuses_unknown_fields_by_name(line: str, cause: str) -> None:
    assert refusal(line, strict=True) == ("c1", "invalid_payload", cause)


def test_strict_accepts_what_is_known() -> None:
    line = envelope(
        v="1",
        ts="t",
        meta={"a": 1},
        type="prompt",
        payload={"text": "t", "images": [{"mime_type": "m", "data": "d"}], "output_schema": {"any": 1}},
    )
    assert accepted(line, strict=True).payload == Prompt(
        text="t", images=[Image(mime_type="m", data="d")], output_schema={"any": 1}
    )
