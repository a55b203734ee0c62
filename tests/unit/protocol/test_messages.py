"""Messages: what is left out on the wire, and sums of usage."""

from __future__ import annotations

from nous.protocol.messages import Message, TextBlock, ToolCallBlock, Usage
from tests.unit.protocol.samples import as_json

CALL = ToolCallBlock(id="t1", name="read", arguments='{"path":"a"}')


def test_a_message_at_the_root_is_short() -> None:
    message = Message(id="m1", role="user", text="Hi", created_at="t")
    assert as_json(message) == {"type": "message", "id": "m1", "role": "user", "text": "Hi", "created_at": "t"}


def test_blocks_name_their_type() -> None:
    message = Message(id="m", role="assistant", text="", created_at="t", blocks=(TextBlock("x"), CALL))
    assert as_json(message)["blocks"] == [
        {"type": "text", "text": "x"},
        {"type": "tool_call", "id": "t1", "name": "read", "arguments": '{"path":"a"}'},
    ]
    assert message.tool_calls == (CALL,)


def test_usage_adds_up_field_by_field() -> None:
    one = Usage(input_tokens=1, output_tokens=20, cached_tokens=300, reasoning_tokens=4000)
    assert one.plus(Usage()) == one
    written = Usage(cache_write_tokens=5)
    assert one.plus(written).plus(one).plus(written).cache_write_tokens == 10
    assert one.plus(one) == Usage(input_tokens=2, output_tokens=40, cached_tokens=600, reasoning_tokens=8000)
