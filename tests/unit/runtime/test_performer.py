"""How a batch of model items is cut: nothing lost, nothing reordered, little that a trace must repeat."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.ports.model import Finish, ModelItem, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.ports.tool import ToolContext, ToolResult
from nous.protocol.messages import ImageBlock, Usage
from nous.runtime.performer import UNSEEN_IMAGES, group_items, split_items
from nous.testing import memory_client, scripted_provider

texts = st.text(min_size=1, max_size=40)
items = st.one_of(
    st.builds(TextDelta, texts),
    st.builds(ThinkingDelta, texts, st.none() | texts),
    st.builds(ToolCallDelta, st.integers(0, 2), st.none() | texts, st.none() | texts, st.just("") | texts),
    st.just(UsageReport(Usage())),
    st.just(Finish("stop")),
)


@given(st.lists(items), st.booleans())
def test_groups_joined_are_the_batch(batch: list[ModelItem], opened: bool) -> None:
    groups = group_items(batch, opened=opened)
    assert [item for group in groups for item in group] == batch
    assert all(groups)
    for group in groups:
        assert len({type(item) is TextDelta for item in group}) == 1


@given(st.lists(items, min_size=1))
def test_what_opens_an_answer_stands_alone_among_text(batch: list[ModelItem]) -> None:
    first = group_items(batch, opened=False)[0]
    assert len(first) == 1 or type(first[0]) is not TextDelta


@given(st.lists(items), st.booleans())
def test_no_more_groups_than_need_be(batch: list[ModelItem], opened: bool) -> None:
    is_text = [type(item) is TextDelta for item in batch]
    changes = sum(a is not b for a, b in pairwise(is_text))
    assert len(group_items(batch, opened=opened)) <= changes + 1 + (not opened)


@given(st.lists(items), st.integers(4, 60))
def test_pieces_joined_say_the_same(batch: list[ModelItem], max_bytes: int) -> None:
    pieces = list(split_items(batch, max_bytes))
    for kind in (TextDelta, ThinkingDelta):
        whole = "".join(item.text for item in batch if isinstance(item, kind))
        assert "".join(piece.text for piece in pieces if isinstance(piece, kind)) == whole
    for index in range(3):
        before = [i for i in batch if isinstance(i, ToolCallDelta) and i.index == index]
        after = [i for i in pieces if isinstance(i, ToolCallDelta) and i.index == index]
        assert "".join(i.arguments for i in after) == "".join(i.arguments for i in before)
        assert [i.id for i in after if i.id] == [i.id for i in before if i.id]
        assert [i.name for i in after if i.name] == [i.name for i in before if i.name]
    signatures = [i.signature for i in batch if isinstance(i, ThinkingDelta) and i.signature]
    assert [i.signature for i in pieces if isinstance(i, ThinkingDelta) and i.signature] == signatures


@given(st.lists(items), st.integers(4, 60))
def test_no_piece_is_longer_than_was_asked(batch: list[ModelItem], max_bytes: int) -> None:
    for piece in split_items(batch, max_bytes):
        text = piece.arguments if isinstance(piece, ToolCallDelta) else getattr(piece, "text", "")
        assert len(text.encode()) <= max_bytes


class CameraTool:
    """Gives an image whether anybody can see it or not."""

    name = "camera"
    description = "Take a picture."
    source = "test"

    def __init__(self) -> None:
        self.schema: dict[str, Any] = {"type": "object"}

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        return ToolResult(text="A picture.", images=(ImageBlock("image/png", "iVBORw0KGgo="),))


@pytest.mark.anyio
async def test_images_nobody_is_known_to_see_are_left_out_in_words() -> None:
    calls = [{"tool_call": {"name": "camera", "arguments": {}}}], [{"text": "done"}]
    async with memory_client(scripted_provider(*calls), tools=[CameraTool()]) as client:
        answer = await client.call("prompt", text="Take a picture.", wait=True)
        messages = (await client.call("get_messages", session_id=answer["session_id"]))["messages"]
    [result] = [message for message in messages if message["role"] == "tool_result"]
    assert result["text"] == f"A picture.\n{UNSEEN_IMAGES}"
    assert [block["type"] for block in result["blocks"]] == ["tool_result"]
