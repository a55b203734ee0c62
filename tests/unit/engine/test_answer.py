"""Joining an answer from its pieces: ids of calls, fragments in any interleaving, arguments as an object."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.engine.answer import StreamedAnswer, parse_arguments
from nous.ports.model import ToolCallDelta
from nous.protocol.messages import TextBlock, ThinkingBlock, ToolCallBlock


def new(*taken: str) -> StreamedAnswer:
    return StreamedAnswer("run-1-m2", set(taken))


def add(answer: StreamedAnswer, *ids: str | None) -> list[str]:
    """Add one call per id, numbered from 0; return the ids they got."""
    return [answer.add_call(ToolCallDelta(index=n, id=i, name="read")) for n, i in enumerate(ids)]


def test_a_usable_id_of_the_model_is_kept() -> None:
    longest = "x" * 128
    assert add(new(), "call_1", longest, "\u2028") == ["call_1", longest, "\u2028"]


@pytest.mark.parametrize("unusable", [None, "", "x" * 129, "taken before"])
def test_an_id_that_cannot_be_used_is_derived_from_the_message(unusable: str | None) -> None:
    assert add(new("taken before"), "call_1", unusable) == ["call_1", "run-1-m2-t1"]


def test_two_calls_with_one_id_are_told_apart() -> None:
    assert add(new(), "same", "same") == ["same", "run-1-m2-t1"]


def test_a_derived_id_is_new_even_if_the_model_guessed_it() -> None:
    assert add(new("run-1-m2-t0"), "run-1-m2-t1", None) == ["run-1-m2-t1", "run-1-m2-t1x"]
    assert add(new("run-1-m2-t0", "run-1-m2-t0x"), None) == ["run-1-m2-t0xx"]


def test_an_id_that_comes_late_does_not_change_the_call() -> None:
    answer = new()
    ids = [answer.add_call(ToolCallDelta(index=0, id=i)) for i in (None, "late")]
    assert set(ids) == {"run-1-m2-t0"}
    assert len(answer.calls()) == 1


def test_the_first_name_counts() -> None:
    answer = new()
    for name in (None, "", "read", "write"):
        answer.add_call(ToolCallDelta(index=0, id="t0", name=name))
    assert answer.calls() == [ToolCallBlock("t0", "read", "")]


def test_a_signature_without_thinking_is_kept() -> None:
    answer = new()
    answer.add_thinking("", "signed")
    answer.add_thinking("", None)
    assert answer.blocks() == answer.sorted_blocks() == (ThinkingBlock("", "signed"),)


def test_the_parts_of_an_answer_stand_in_the_order_they_came() -> None:
    answer = new()
    answer.add_thinking("First", None)
    answer.add_thinking(" this.", "s1")
    answer.add_thinking("Then that.", None)
    answer.text += ["Look", "ing."]
    answer.add_call(ToolCallDelta(index=0, id="t0", name="read"))
    answer.add_thinking("", "s2")
    answer.add_call(ToolCallDelta(index=1, id="t1", name="ls"))
    answer.add_call(ToolCallDelta(index=0, arguments="{}"))
    answer.text.append("Done.")
    assert answer.full_text() == "Looking.Done."
    assert answer.blocks() == (
        ThinkingBlock("First this.", "s1"),
        ThinkingBlock("Then that."),
        TextBlock("Looking."),
        ToolCallBlock("t0", "read", "{}"),
        ThinkingBlock("", "s2"),
        ToolCallBlock("t1", "ls", ""),
        TextBlock("Done."),
    )
    assert answer.sorted_blocks() == (
        ThinkingBlock("First this.Then that.", "s2"),
        TextBlock("Looking.Done."),
        ToolCallBlock("t0", "read", "{}"),
        ToolCallBlock("t1", "ls", ""),
    )


def test_thinking_of_nothing_was_a_block_once_and_is_none_any_more() -> None:
    answer = new()
    answer.add_thinking("", None)
    assert answer.sorted_blocks() == (ThinkingBlock(""),)
    assert answer.blocks() == ()


@given(st.lists(st.one_of(st.text(max_size=4), st.just(None), st.just(("call",))), max_size=12))
def test_the_texts_of_the_parts_are_the_text(pieces: list[str | tuple[str] | None]) -> None:
    answer = new()
    for piece in pieces:
        if isinstance(piece, str):
            answer.text.append(piece)
        elif piece is None:
            answer.compact()
            answer.add_thinking("hm", None)
        else:
            answer.add_call(ToolCallDelta(index=0))
    before = answer.full_text()
    blocks = answer.blocks()
    assert "".join(block.text for block in blocks if isinstance(block, TextBlock)) == before == answer.full_text()
    assert blocks == answer.blocks()


@given(st.lists(st.text(max_size=8), max_size=4), st.randoms(use_true_random=False), st.data())
def test_fragments_join_in_any_interleaving(arguments: list[str], random: Any, data: st.DataObject) -> None:
    streams: list[list[ToolCallDelta]] = []
    for index, text in enumerate(arguments):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
        bounds = zip([0, *cuts], [*cuts, len(text)], strict=True)
        first = ToolCallDelta(index=index, id=f"t{index}", name=f"tool{index}")
        streams.append([first, *[ToolCallDelta(index=index, arguments=text[a:b]) for a, b in bounds]])
    answer = new()
    while any(streams):
        stream = random.choice([s for s in streams if s])
        answer.add_call(stream.pop(0))
    assert answer.calls() == [ToolCallBlock(f"t{n}", f"tool{n}", text) for n, text in enumerate(arguments)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        (" \n", {}),
        ("{}", {}),
        (' {"a": [1, "\u2028"]} ', {"a": [1, "\u2028"]}),
        ('{"a":1,"a":2}', {"a": 2}),
        ('{"a":123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        ("[]", None),
        ("null", None),
        ('{"a":1', None),
        ('{"a":1}x', None),
        ('{"a":Infinity}', None),
        ('{"a":"\\udc00"}', None),
        ('{"a":"\x01"}', None),
        ('{"a":' * 64 + "1" + "}" * 64, None),
        ('{"a":' * 1_000_000, None),
        ("9" * 5000, None),
    ],
)
def test_arguments_are_one_object_or_nothing(text: str, value: dict[str, Any] | None) -> None:
    if value is None and text.startswith('{"a":{') and text.endswith("}"):
        assert parse_arguments(text) is not None  # 64 levels are allowed
        text = '{"a":' + text + "}"
    assert parse_arguments(text) == value


@given(st.text())
def test_no_arguments_raise(text: str) -> None:
    assert isinstance(parse_arguments(text), dict | None)
