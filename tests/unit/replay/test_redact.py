"""Redaction of texts: what is found, what stands for it, and that nothing else changes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from difflib import SequenceMatcher
from typing import Any, Final
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nous.engine.answer import parse_arguments
from nous.protocol.messages import ImageBlock, Message, ThinkingBlock, ToolCallBlock
from nous.replay.held import Held, Span
from nous.replay.patterns import find_secrets
from nous.replay.redact import Redactor
from nous.replay.redact_struct import StructRedactor

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQ==\n-----END PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"


def redact(text: str, *held: str) -> str:
    return Redactor(held).text(text)


# -- what is found


@pytest.mark.parametrize(
    "secret",
    [
        "sk-abc123",
        "sk-proj-Ab3dE5fG7hI9jK1lM3nO5pQ7-_x",
        "sk-ant-api03-abcdef",
        "sk_live_abcdefgh",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "gho_16C7e42F292c69",
        "ghs_16C7e42F292c69",
        "github_pat_11ABCDEFG0abcdefgh",
        "glpat-abcdefgh12345678",
        "AKIAIOSFODNN7EXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        "AIzaSyA-1234567890abcdefghijklmnopqrstu",
        "xoxb-123456789012-abcdefABCDEF",
        "xoxp-123456789012",
        JWT,
    ],
)
@pytest.mark.parametrize("text", ["{}", "key={}", '"{}"', "({})", "a\n{}\nb", 'a\\n{}"', "\u00e9{}\u2028", "KEY:{},"])
def test_a_known_form_is_found_in_any_surroundings(secret: str, text: str) -> None:
    found = redact(text.format(secret))
    assert secret not in found
    assert found == text.format(found[text.index("{") :][: len(secret)])


@pytest.mark.parametrize(
    "secret",
    [
        "sk-Ab3dE5fG7hI9jK1lM3nO5pQ7",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyA-1234567890abcdefghijklmnopqrstu",
        "xoxb-123456789012-abcdefABCDEF",
    ],
)
def test_a_long_token_is_found_behind_a_letter_too(secret: str) -> None:
    assert redact(f"key{secret}!") == f"key{Redactor().text(secret)}!" != f"key{secret}!"


@pytest.mark.parametrize("word", ["Bearer {}", "bearer {}", "BEARER\t{}", '"Bearer": "{}"', "Authorization: Bearer {}"])
def test_what_stands_behind_bearer_is_found(word: str) -> None:
    assert redact(word.format("abc.DEF-123~x=")) == word.format("[REDACTED****]")


def test_a_password_in_a_url_is_found() -> None:
    assert redact("postgres://me:pass-word@host:5432/db") == "postgres://me:*********@host:5432/db"


@pytest.mark.parametrize(
    "text",
    [
        "task-force-implementation, desk-abcdefghij",
        "sk-learn and sk_buff_head",
        "high_quality_code",
        "AKIASHORT",
        "the bearer of this",
        "eyJust.some.words",
        "http://localhost:8080/path@2x",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        "PRIVATE KEY",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_a_private_key_is_hidden_whole_and_keeps_its_lines() -> None:
    found = redact(f"before\n{PEM}\nafter")
    assert found.startswith("before\n[REDACTED***")
    assert found.endswith("***]\nafter")
    assert [len(line) for line in found.split("\n")] == [len(line) for line in f"before\n{PEM}\nafter".split("\n")]


@pytest.mark.parametrize("cut", [slice(0, 40), slice(0, -10), slice(10, None), slice(30, None)])
def test_a_private_key_that_was_cut_is_hidden_as_far_as_it_goes(cut: slice) -> None:
    found = redact(f"See: {PEM[cut]}!")
    assert "MIIE" not in found
    assert "kqhkiG9w0BAQ" not in found
    assert found.endswith("!")


def test_markers_far_apart_do_not_hide_what_lies_between() -> None:
    text = f"-----BEGIN PRIVATE KEY-----. {'word, ' * 20_000}-----END PRIVATE KEY-----"
    assert redact(text).count("word, ") == 20_000


@pytest.mark.parametrize(
    "secret", ["hunter2", 'with "quotes"', "back\\slash", "two\nlines", "\u00fcml\u00e4ut\U0001f600"]
)
def test_a_held_value_is_found_as_it_is_and_as_json(secret: str) -> None:
    redactor = Redactor([secret])
    for text in (f"a {secret} b", f"say {json.dumps({'k': secret}, ensure_ascii=False)}"):
        found = redactor.text(text)
        assert secret not in found
        assert json.dumps(secret, ensure_ascii=False)[1:-1] not in found
        assert len(found.encode()) == len(text.encode())


def test_a_short_held_value_is_no_secret() -> None:
    assert redact("this is a test", "test") == "this is a test"


def test_overlapping_secrets_are_hidden_together() -> None:
    assert redact("Bearer sk-abcdefgh12345", "gh12345xx", "defgh1") == "Bearer [REDACTED******]"
    assert find_secrets("abcabcabc!", Held(["abcabc"])) == [Span(0, 9)]


# -- what stands for it


@given(st.text(), st.text(min_size=6), st.text())
@example("", PEM, "")
@example("", 'sk-abcdefgh"\\\x00\x7f', "")
def test_a_placeholder_is_as_long_as_the_secret_in_every_way(before: str, secret: str, after: str) -> None:
    text = before + secret + after
    found = redact(text, secret)
    assert len(found) == len(text)
    assert [len(c.encode()) for c in found] == [len(c.encode()) for c in text]
    assert [len(msgspec.json.encode(c)) for c in found] == [len(msgspec.json.encode(c)) for c in text]
    assert redact(found, secret).count("") == found.count("")


@given(st.text())
def test_what_is_redacted_is_redacted_once(text: str) -> None:
    text = f"{text} sk-abcdefghijkl {PEM} {text} Bearer abcdefgh {JWT}{text}"
    once = redact(text)
    assert redact(once) == once


def test_the_same_secret_has_the_same_placeholder() -> None:
    redactor = Redactor()
    assert redactor.text("sk-abcdefgh") == redactor.text("sk-abcdefgh") == "[REDACTED*]"
    assert redactor.text("sk-ab1234") == "*********"
    assert redactor.count == 3


@given(st.lists(st.text()), st.lists(st.text()))
def test_pieces_are_redacted_as_one_and_keep_their_sizes(before: list[str], after: list[str]) -> None:
    pieces = [*before, " sk-ab", "", "c", "defghi", *after]
    found = Redactor().pieces(pieces)
    assert [len(piece.encode()) for piece in found] == [len(piece.encode()) for piece in pieces]
    assert "sk-abcdefghi" not in "".join(found)


# -- JSON

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def shape(value: Any) -> Any:
    """Return what must not change: kinds, order, sizes."""
    if isinstance(value, dict):
        return [(len(k.encode()), shape(v)) for k, v in value.items()]
    if isinstance(value, list):
        return [shape(v) for v in value]
    return len(value.encode()) if isinstance(value, str) else type(value)


def spelled(text: str) -> str:
    """Return JSON's longest way to write a text."""
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


@given(st.dictionaries(st.text(), values, max_size=3), st.booleans())
def test_arguments_stay_json_of_the_same_shape(arguments: dict[str, Any], ascii_only: bool) -> None:
    arguments = {"a": ["say sk-abcdefghij", {"n": PEM}], "b": f"{JWT}\n", **arguments, "last": 'hunter"2'}
    text = json.dumps(arguments, ensure_ascii=ascii_only)
    found = Redactor(['hunter"2']).arguments(text)
    assert len(found.encode()) == len(text.encode())
    assert shape(json.loads(found)) == shape(json.loads(text))
    for secret in ("sk-abcdefghij", "MIIE", JWT, "hunter"):
        assert secret not in str(strings(json.loads(found)))


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [s for pair in value.items() for s in strings(list(pair))]
    if isinstance(value, list):
        return [s for v in value for s in strings(v)]
    return [value] if isinstance(value, str) else []


def test_a_secret_spelled_in_escapes_is_found() -> None:
    secret = "sk-\u00e9abcdef\U0001f600\u20ac"
    text = f'{{"key":"{spelled(secret)}"}}'
    found = Redactor([secret]).arguments(text)
    assert len(found) == len(text)
    assert json.loads(found)["key"] == "***\u00b7******\U0001f512\u2022"


def test_escapes_that_json_needs_stay() -> None:
    text = json.dumps({"key": PEM, "again": 'a\n\t\\ "sk-abcdefgh"'})
    found = Redactor().arguments(text)
    assert found.count("\\n") == text.count("\\n")
    assert json.loads(found)["again"] == 'a\n\t\\ "[REDACTED*]"'


def test_a_number_that_is_a_secret_stays_a_number() -> None:
    text = '{"pin": 1234567, "list": [true, -98.7654321e5]}'
    found = Redactor(["1234567", "true, -98.7654"]).arguments(text)
    assert found == '{"pin": 1111111, "list": [true, -11.1111321e5]}'


@pytest.mark.parametrize(
    "text",
    ['{"key": "sk-abcdefghij', "sk-abcdefghij", '{"k": 01234567}', '["sk-abcdefghij"]', "{'k': 'sk-abcdefghij'}"],
)
def test_what_is_no_json_object_is_redacted_and_does_not_become_one(text: str) -> None:
    found = Redactor(["01234567"]).arguments(text)
    assert found != text
    assert len(found) == len(text)
    assert parse_arguments(found) is None


def test_half_an_escape_is_left_whole() -> None:
    # The held value begins in the middle of an escape sequence, where no text begins.
    text = '{"a":"x\\nabcdef"'
    assert Redactor(["nabcdef"]).arguments(text) == '{"a":"x\\n******"'


# -- messages


def test_a_message_is_redacted_in_all_its_parts() -> None:
    message = Message(
        id="m1",
        role="assistant",
        text="sk-abcdefgh",
        created_at="2026-01-02T03:04:05.000Z",
        blocks=(
            ThinkingBlock("it is sk-abcdefgh", "sig-sk-abcdefgh"),
            ToolCallBlock("sk-abcdefgh", "sk-abcdefgh", '{"k":"sk-abcdefgh"}'),
            ImageBlock("image/png", "c2stYWJj"),
        ),
    )
    found = StructRedactor(Redactor()).struct(message)
    assert b"abcdefgh" not in msgspec.json.encode(found)
    assert (found.id, found.blocks[2]) == ("m1", message.blocks[2])


# -- how long it takes

LONG = 1024 * 1024


@pytest.mark.parametrize(
    "text",
    [
        "sk-" * (LONG // 3),
        "asksk-" * (LONG // 6),
        "eyJaaaa-" * (LONG // 8),
        "eyJaaaa." * (LONG // 8),
        "-----BEGIN PRIVATE KEY-----" * (LONG // 27),
        "-----END PRIVATE KEY-----a" * (LONG // 26),
        "-----BEGIN " + "A" * LONG,
        "://a:" * (LONG // 5),
        "Bearer" + " " * LONG,
        '{"a":"' + "\\" * LONG,
        '{"a":"' + '\\"' * (LONG // 2),
        '"' * LONG,
    ],
    ids=lambda text: text[:12],
)
def test_no_text_takes_more_than_its_length(text: str) -> None:
    # A pattern that starts over at every place would need an hour for these.
    assert len(Redactor(["hunter2hunter2"]).arguments(text)) == len(text)


# -- held values, however they are written

KEY = "k3y-With.Some~Signs+and/more="

ENCODED: Final[dict[str, Callable[[str], str]]] = {
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 behind one byte": lambda key: base64.b64encode(b"u" + key.encode() + b":x").decode(),
    "base64 behind two bytes": lambda key: base64.b64encode(b"u:" + key.encode()).decode(),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(b"\xff\xfe" + key.encode()).decode(),
    "wrapped base64": lambda key: base64.encodebytes(b"x" * 50 + key.encode()).decode(),
    "hex": lambda key: key.encode().hex(),
    "HEX": lambda key: key.encode().hex().upper(),
    "quoted": lambda key: quote(key, safe=""),
    "quoted as a form": quote_plus,
    "every character quoted": lambda key: "".join(f"%{byte:02x}" for byte in key.encode()),
    "split by LF": lambda key: f"{key[:9]}\n{key[9:]}",
    "split by CRLF and indented": lambda key: f"{key[:9]}  \r\n    {key[9:]}",
    "split by a continued line": lambda key: f"{key[:9]}\\\n{key[9:]}",
    "split by an escaped line end": lambda key: f"{key[:9]}\\n{key[9:]}",
    "split more than once": "\n".join,
    "split hex": lambda key: f"{key.encode().hex()[:11]}\n{key.encode().hex()[11:]}",
}
"""Ways to write a key."""


def letters(text: str) -> str:
    """Return a text without what may separate the parts of a key."""
    return "".join(text.replace("\\n", "").replace("\\", "").split())


@pytest.mark.parametrize("form", ENCODED)
@pytest.mark.parametrize("around", ["{}", "key={}&x", "Authorization: {}\nnext", "\u00e9 {} \U0001f600"])
def test_a_held_key_is_found_however_it_is_written(form: str, around: str) -> None:
    text = around.format(ENCODED[form](KEY))
    found = redact(text, KEY)
    assert [len(found), len(found.encode())] == [len(text), len(text.encode())]
    assert found.count("\n") == text.count("\n")
    shared = SequenceMatcher(None, letters(ENCODED[form](KEY)), letters(found), autojunk=False).find_longest_match()
    before_the_key = len(base64.b64encode(b"x" * 50)) if form == "wrapped base64" else 0
    assert shared.size <= max(3, before_the_key), found


@pytest.mark.parametrize("form", ENCODED)
def test_it_is_found_in_arguments_too(form: str) -> None:
    text = json.dumps({"command": f"echo '{ENCODED[form](KEY)}'", "n": 1})
    found = Redactor([KEY]).arguments(text)
    assert len(found) == len(text)
    assert isinstance(json.loads(found), dict)
    assert ENCODED[form](KEY) not in json.loads(found)["command"]


@pytest.mark.parametrize(
    "text",
    [
        "npm_abcdefghijklmnopqrstuvwxyz0123456789",
        "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "pypi-AgEIcHlwaS5vcmcCJDU3ZTk0-_xyz",
        "Authorization: Basic dXNlcjpwYXNz",
        "Basic dXNlcjpwYXNzd29yZA==",
        '{"authorization":"Basic dXNlcjpwYXNzd29yZA"}',
    ],
)
def test_credentials_of_registries_and_of_basic_authentication_are_found(text: str) -> None:
    found = redact(text)
    assert "*" in found
    assert not {"abcdefghij", "AgEIcHlwaS5vcmc", "dXNlcjpw"} & {
        found[i : i + n] for n in (8, 10, 15) for i in range(60)
    }


@pytest.mark.parametrize(
    "text", ["Basic understanding of it", "basic authentication", "hf_transfer", "npm_config_cache", "pypi-publish"]
)
def test_words_that_only_look_like_them_stay(text: str) -> None:
    assert redact(text, KEY) == text
