"""Events as structs, also where a server is careless."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from nous.errors import NousError
from nous.providers.decoding import decode_event, encode_text


class Event(Struct):
    text: str = ""


DECODER = msgspec.json.Decoder(Event)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"text":"a","more":1}', "a"),
        (b'{"text":"\\ud83d\\ude00"}', "\U0001f600"),
        (b'{"text":"\\ud83d"}', "\ud83d"),
        (b'{"text":"a\xf0\x9f"}', "a\ufffd"),
    ],
)
def test_good_and_careless(data: bytes, text: str) -> None:
    assert decode_event(DECODER, data, "an event").text == text


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"secret", "malformed: an event is not JSON"),
        (b'{"text":7}', "malformed: an event is not a thing: $.text"),
        (b'{"text":"\\ud83d","x":secret}', "malformed: an event is not JSON"),
        (b'["\\ud83d"]', "malformed: an event is not a thing"),
        (b"[" * 100_000, "malformed: an event is not a thing"),
        (b'{"a":' + b"[" * 100_000, "malformed: an event is not JSON"),
    ],
)
def test_refused_without_being_repeated(data: bytes, cause: str) -> None:
    with pytest.raises(NousError) as caught:
        decode_event(DECODER, data, "a thing")
    assert (caught.value.code, caught.value.cause) == ("provider_error", cause)


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_values_become_text_that_means_the_same(value: object) -> None:
    assert json.loads(encode_text(value)) == value


def test_half_a_pair_in_a_value() -> None:
    assert encode_text({"\ud83d": ["\ude00", "\xfc"]}) == '{"\ufffd":["\ufffd","\xfc"]}'
