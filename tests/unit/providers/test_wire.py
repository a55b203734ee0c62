"""The rules that hold in every dialect."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.ports.model import ContextMessage, ModelRequest, ToolCallDelta, ToolSpec
from nous.protocol.messages import ImageBlock, Message, TextBlock, ThinkingBlock, ToolCallBlock
from nous.providers.wire import (
    CallIds,
    MessageEncoder,
    arguments_of,
    as_json,
    check_image,
    data_url,
    fit_name,
    group_turns,
    own_names,
    results_of,
    said_blocks,
    visible,
)
from tests.support.vendor_requests import PNG, calls, result, results, said, user
from tests.support.vendor_streams import adapter_of, play, recording


def test_a_message_is_encoded_once_per_key() -> None:
    seen: list[str] = []

    def translate(message: Message) -> list[object]:
        seen.append(message.text)
        return [{"a": message.text}, {"b": 1}]

    item = user("x")
    first, second = MessageEncoder("one", translate), MessageEncoder("two", translate)
    assert first.encode(item) == first.encode(item) == second.encode(item) == b'{"a":"x"},{"b":1}'
    assert seen == ["x", "x"]
    assert item.wire.keys() == {"one", "two"}


def test_turns() -> None:
    messages = [user(), user(), said(TextBlock("a")), results(result("c")), user()]
    assert [(turn.is_model, len(turn.messages)) for turn in group_turns(messages)] == [
        (False, 2),
        (True, 1),
        (False, 2),
    ]
    assert group_turns([]) == []


def test_thinking_is_seen_by_its_own_model_only() -> None:
    blocks = (ThinkingBlock("t", "s"), TextBlock("a"), calls("c"))
    message = said(*blocks, by=("anthropic", "m")).message
    assert tuple(said_blocks(message, "anthropic", "m")) == blocks
    for name, model in (("anthropic", "n"), ("gemini", "m"), ("", "")):
        assert tuple(said_blocks(message, name, model)) == blocks[1:]


def test_a_message_without_blocks_says_its_text() -> None:
    bare = Message(id="a", role="assistant", text="x", created_at="")
    assert [*said_blocks(bare, "p", "m")] == [TextBlock("x")]


def test_images_belong_to_the_result_before_them() -> None:
    other = ImageBlock("image/gif", "R0lG")
    message = results(PNG, result("a"), PNG, other, result("b"), result("c"), PNG).message
    assert [(found.tool_call_id, images) for found, images in results_of(message)] == [
        ("a", [PNG, other]),
        ("b", []),
        ("c", [PNG]),
    ]


@pytest.mark.parametrize("taken", [True, None])
def test_images_that_are_taken(taken: bool | None) -> None:
    assert check_image(PNG, "m", taken=taken) is PNG
    assert data_url(PNG) == "data:image/png;base64,iVBORw0KGgo="


def test_images_that_are_not_taken() -> None:
    with pytest.raises(NousError, match="the model m takes none") as caught:
        check_image(PNG, "m", taken=False)
    assert caught.value.code == "capability_unavailable"
    with pytest.raises(NousError, match="image/gif, image/jpeg, image/png, image/webp"):
        check_image(ImageBlock("image/heic", "x"), "m", taken=True)


@given(st.text(max_size=200), st.text(max_size=200))
def test_call_ids_become_what_the_vendor_takes_and_stay_apart(one: str, other: str) -> None:
    ids = CallIds(r"[a-zA-Z0-9_-]{1,64}")
    assert len(ids.fit(one)) <= 64
    assert ids.fit(ids.fit(one)) == ids.fit(one) == CallIds(r"[a-zA-Z0-9_-]{1,64}").fit(one)
    assert (ids.fit(one) == ids.fit(other)) == (one == other)


def test_call_ids_that_fit_stay() -> None:
    assert CallIds(r"[a-z]{1,3}").fit("abc") == "abc"
    assert CallIds(r"[a-z]{1,3}").fit("abc\n").startswith("call_")


@given(st.text(max_size=100))
def test_names_become_what_every_vendor_takes(name: str) -> None:
    fitted = fit_name(name)
    assert 0 < len(fitted) <= 64
    assert fitted.replace("_", "a").replace("-", "a").isalnum()
    assert fitted.isascii()
    assert not fitted[0].isdigit()


_PART = st.sampled_from(["a", ".", "-", "-dot-", "dot", "_", "-x0123456789abcdef", "1", "é", "b" * 30])


@given(*[st.lists(_PART, max_size=6).map("".join)] * 2)
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (fit_name(one) == fit_name(other)) == (one == other)


@pytest.mark.parametrize("vendor", ["openai", "openai-responses", "anthropic", "gemini"])
def test_a_tool_with_a_dot_is_offered_called_and_remembered_under_one_name(vendor: str) -> None:
    tools = [ToolSpec(name, "", {"type": "object"}) for name in ("demo.echo", "demo_echo", "demo-dot-echo")]
    adapter = adapter_of(vendor)
    message = Message(id="m", role="assistant", text="", created_at="", blocks=(ToolCallBlock("c", "demo.echo", "{}"),))
    request = ModelRequest(
        run_id="r", session_id="s", call=1, system="", messages=[ContextMessage(message)], tools=tools
    )
    body = adapter.build(request).body.decode()
    fitted = [fit_name(tool.name) for tool in tools]
    assert fitted[:2] == ["demo-dot-echo", "demo_echo"]
    assert len(set(fitted)) == 3
    assert "demo.echo" not in body
    assert body.count('"demo-dot-echo"') >= 2
    names = own_names(tools)
    assert [names.get(name, name) for name in fitted] == ["demo.echo", "demo_echo", "demo-dot-echo"]
    spoken = {"openai": "tool-call", "openai-responses": "whole-call", "anthropic": "thinking-tools"}
    recorded = recording(vendor, spoken.get(vendor, "thinking-tools")).replace(b'"read"', b'"demo-dot-echo"')
    items, failure = play(adapter.parser(tools), [recorded])
    assert failure is None
    assert next(item.name for item in items if isinstance(item, ToolCallDelta)) == "demo.echo"


@pytest.mark.parametrize(
    ("name", "fitted"),
    [
        ("read", "read"),
        ("mcp__a-b__c", "mcp__a-b__c"),
        ("a.b", "a-dot-b"),
        ("a b.c", "a_b_c-x7509d20a34adc66d"),
        ("", "unnamed-xe3b0c44298fc1c14"),
    ],
)
def test_names(name: str, fitted: str) -> None:
    assert fit_name(name) == fitted


@given(st.text(max_size=50) | st.sampled_from(["", "{}", '{"a": 1}', "[]", "[" * 10_000, '{"a":1e999}', "{}x"]))
def test_arguments_are_an_object_whatever_the_model_wrote(text: str) -> None:
    found = json.loads(bytes(arguments_of(calls("c", arguments=text))))
    assert isinstance(found, dict)
    assert found.get("not_an_object", text) == text


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [("[1]", list, b"[1]"), ("[1]", dict, None), ("{}", dict, b"{}"), ("nonsense", dict, None), ("", list, None)],
)
def test_json_that_is_joined_into_a_request(text: str, kind: type, found: bytes | None) -> None:
    raw = as_json(text, kind)
    assert (None if raw is None else bytes(raw)) == found


@pytest.mark.parametrize(("text", "shown"), [("a", "a"), (" a", " a"), ("", "(no text)"), (" \n\t", "(no text)")])
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_blocks_that_are_no_images_or_results_mean_nothing_in_a_result() -> None:
    message = ContextMessage(results(TextBlock("x"), result("a")).message).message
    assert [found.tool_call_id for found, _ in results_of(message)] == ["a"]
