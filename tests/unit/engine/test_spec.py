"""Digests that stand for a context: they see every part of it, and are the same everywhere."""

from __future__ import annotations

from msgspec.structs import replace

from nous.engine.spec import EMPTY_CONTEXT, EngineLimits, chain_digest, request_digest
from nous.protocol.messages import Message, TextBlock

MESSAGE = Message(id="m1", role="user", text="hello", run_id="r1", created_at="2026-01-02T03:04:05.000Z")


def test_the_limits_of_a_run_are_pinned() -> None:
    limits = EngineLimits()
    assert (limits.max_model_calls, limits.abort_grace_ms) == (64, 2000)
    assert (limits.max_message_bytes, limits.inline_text_bytes) == (33_554_432, 262_144)


def test_the_digest_of_a_context_is_pinned() -> None:
    # It stands in traces: a change breaks the replay of every one that was recorded before.
    assert EMPTY_CONTEXT == "f6a330095153adaa97c4dd3c59f582289a29193496ef91e3b87f77cf1e49dff3"
    assert chain_digest(EMPTY_CONTEXT, MESSAGE) == "1b75a78d5dd72241bf9f9c01c1641a9d80a4c44d0e61a84a0edf71e694f75538"
    assert (
        request_digest(EMPTY_CONTEXT, "0" * 64, ("read", "write"))
        == "82fd0ba255bbd0e3611c05fc1f7d6d0c6e0fc6a2aec684f43ebf812a66d58ed4"
    )


def test_every_part_of_a_message_counts() -> None:
    changes: list[dict[str, object]] = [
        {"id": "m2"},
        {"parent_id": "m0"},
        {"role": "assistant"},
        {"text": "hullo"},
        {"run_id": "r2"},
        {"created_at": ""},
        {"turn_kind": "prompt"},
        {"blocks": (TextBlock("hello"),)},
    ]
    digests = {chain_digest(EMPTY_CONTEXT, replace(MESSAGE, **change)) for change in changes}
    assert len(digests | {chain_digest(EMPTY_CONTEXT, MESSAGE)}) == len(changes) + 1


def test_the_order_of_messages_counts() -> None:
    other = replace(MESSAGE, id="m2")
    one_way = chain_digest(chain_digest(EMPTY_CONTEXT, MESSAGE), other)
    assert one_way != chain_digest(chain_digest(EMPTY_CONTEXT, other), MESSAGE)


def test_every_part_of_a_request_counts() -> None:
    requests = [("c", "s", ("a",)), ("d", "s", ("a",)), ("c", "t", ("a",)), ("c", "s", ("b",)), ("c", "s", ("a", "b"))]
    assert len({request_digest(*request) for request in requests}) == len(requests)
