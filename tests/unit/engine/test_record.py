"""Inputs and effects as lines of a trace."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.engine import effects as e
from nous.engine import inputs as i
from nous.engine.record import effect_digest, effect_line, input_line, read_input
from nous.ports.model import TextDelta, ToolCallDelta
from nous.protocol.entries import Compaction
from nous.protocol.messages import Message
from tests.support.engine_moves import hook_outcomes

STAMP = i.Stamp("2026-01-02T03:04:05.678Z", 12_345_678_901)


ITEMS: dict[type, st.SearchStrategy[Any]] = {
    i.HookAnswered: st.builds(i.HookAnswered, st.integers(1, 99), hook_outcomes),
}
"""Where hypothesis cannot tell from the types what may stand in an input."""


@pytest.mark.parametrize("kind", get_args(i.Input), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_input_reads_back_as_it_was_written(kind: type[i.Input], data: st.DataObject) -> None:
    item = data.draw(ITEMS[kind] if kind in ITEMS else st.from_type(kind))
    n, after_seq = data.draw(st.integers(1, 1 << 40)), data.draw(st.integers(0, 1 << 40))
    line = input_line(n, after_seq, STAMP, item)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    record, stamp, read = read_input(line)
    assert (stamp, read) == (STAMP, item)
    assert type(read) is kind
    assert (record.n, record.after_seq, record.kind) == (n, after_seq, kind.__struct_config__.tag)
    assert input_line(n, after_seq, stamp, read) == line


def test_the_shape_of_an_input_line() -> None:
    line = input_line(7, 3, STAMP, i.Steered("s1", "stop"))
    assert line == (
        b'{"type":"trace.input","n":7,"after_seq":3,"ts":"2026-01-02T03:04:05.678Z","mono_ns":12345678901,'
        b'"kind":"steered","data":{"command_id":"s1","text":"stop"}}\n'
    )


def test_items_of_a_model_are_told_apart_by_their_type() -> None:
    line = input_line(1, 0, STAMP, i.ModelProduced(1, [TextDelta("a"), ToolCallDelta(index=0, name="read")]))
    assert json.loads(line)["data"] == {
        "call": 1,
        "items": [{"type": "text", "text": "a"}, {"type": "tool_call", "index": 0, "name": "read"}],
    }


GOOD = input_line(1, 0, STAMP, i.TimerFired("abort_grace"))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        GOOD.replace(b"trace.input", b"trace.effect"),
        GOOD.replace(b"timer_fired", b"unheard_of"),
        GOOD.replace(b"abort_grace", b"\xff"),
        GOOD.replace(b"abort_grace", b"another"),
        GOOD.replace(b'{"timer":"abort_grace"}', b"{}"),
        GOOD.replace(b'{"timer":"abort_grace"}', b"7"),
        GOOD.replace(b'{"timer":"abort_grace"}', b'["timer"]'),
        GOOD.replace(b'{"timer":"abort_grace"}', b"[" * 100_000 + b"]" * 100_000),
        GOOD.replace(b'{"timer":"abort_grace"}', b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        GOOD[:-10],
        GOOD + GOOD,
    ],
)
def test_anything_else_is_a_decode_error(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        read_input(line)


@given(st.binary(max_size=20), st.integers(0, len(GOOD)), st.integers(0, 20))
def test_a_damaged_line_raises_nothing_but_a_decode_error(noise: bytes, at: int, length: int) -> None:
    try:
        _, _, item = read_input(GOOD[:at] + noise + GOOD[at + length :])
    except msgspec.DecodeError:
        return
    assert isinstance(item, get_args(i.Input))


# -- effects

MESSAGE = Message(id="m1", role="user", text="hello", run_id="r1", created_at="2026-01-02T03:04:05.000Z")
COMPACTION = Compaction(
    id="run-1-c1", parent_id="m1", summary="short", tokens_before=9, trigger="manual", by="model", created_at="then"
)
EFFECTS: list[tuple[e.Effect, bytes]] = [
    (
        e.CallModel(2, "answer", "m1", ("read",), "ab" * 32),
        b'"kind":"call_model","digest":"' + b"ab" * 32 + b'","data":{"call":2,"purpose":"answer"}',
    ),
    (
        e.StopModel(2),
        b'"kind":"stop_model","digest":"d00aa7d5cdf0d81f62b40c523a5c4478dc57b8981679c8d117c61694faf5a55f"',
    ),
    (
        e.AskPolicy("t0", "read", {"path": "a"}),
        b'"kind":"ask_policy","digest":"019c77bdf16ab8079dac0dbba03cd3be83a2edfceffd3683dc26ae7f79361c83",'
        b'"data":{"tool_call_id":"t0","tool_name":"read"}',
    ),
    (
        e.RunTool("t0", "read", {"path": "a"}),
        b'"kind":"run_tool","digest":"019c77bdf16ab8079dac0dbba03cd3be83a2edfceffd3683dc26ae7f79361c83",'
        b'"data":{"tool_call_id":"t0","tool_name":"read"}',
    ),
    (
        e.StopTool("t0"),
        b'"kind":"stop_tool","digest":"5e7ba4ba8d8d53458a56e95844810296935ccfaba75a0bb40f61cc100c1972f1"',
    ),
    (
        e.AppendEntry(MESSAGE),
        b'"kind":"append_entry","digest":"8b6995a73a26652b01fba54f122287bffbdadbcfff5e2d6628270912f478984d",'
        b'"data":{"entry_id":"m1"}',
    ),
    (
        e.PlanCompaction("run-1-c1", "m1", "names"),
        b'"kind":"plan_compaction","digest":"8730adb263f550a99c507f3e9ca112c6afab2439d0e72d19082b8794e58e2a60","data":{"entry_id":"run-1-c1"}',
    ),
    (
        e.AppendCompaction(COMPACTION),
        b'"kind":"append_compaction","digest":"b619fc2191895d975e879c1361973637a9aa9f4c62e14fc015a337ea82d0944a","data":{"entry_id":"run-1-c1"}',
    ),
    (
        e.CheckOutput("run-1-m2", "{}"),
        b'"kind":"check_output","digest":"72cd3b217e04313bd3fd1d08aab7c19bbaefea5861aaf9d96523c47143713be4",'
        b'"data":{"entry_id":"run-1-m2"}',
    ),
    (
        e.CallHook(3, "tool_call", {"tool_name": "read"}),
        b'"kind":"call_hook","digest":"5dcf88961c202275db0353d9a00c905c454791e96116607b80459eda3feb4173","data":{"operation":3,"hook":"tool_call"}',
    ),
    (e.StopHook(3), b'"kind":"stop_hook","digest":"4e73049600aa93c95e3b452d0da80ba39028d7ec95c4bec1c6d9559c647e2e2a"'),
    (
        e.TellHook("run_end", {"status": "completed"}),
        b'"kind":"tell_hook","digest":"37f1f530c646842785077610187f8cb46f970c8d0cee937a1e366949626e199c","data":{"hook":"run_end"}',
    ),
    (
        e.StartTimer("abort_grace", 2000),
        b'"kind":"start_timer","digest":"518037fbddf4dc44c5482ae76bbd037540e4eef37b5aac28ac5499c992fd9e31"',
    ),
]


@pytest.mark.parametrize(("effect", "rest"), EFFECTS, ids=lambda value: type(value).__name__)
def test_the_line_of_an_effect_is_pinned(effect: e.Effect, rest: bytes) -> None:
    # It stands in traces: a change breaks the replay of every one that was recorded before.
    assert effect_line(5, effect) == b'{"type":"trace.effect","n":5,' + rest + b"}\n"


def test_every_effect_is_pinned() -> None:
    assert {type(effect) for effect, _ in EFFECTS} == set(get_args(e.Effect))


def test_a_digest_sees_all_that_is_asked_for() -> None:
    asked: list[e.Effect] = [
        *[effect for effect, _ in EFFECTS if not isinstance(effect, e.AskPolicy)],
        e.RunTool("t1", "read", {"path": "a"}),
        e.RunTool("t0", "write", {"path": "a"}),
        e.RunTool("t0", "read", {"path": "b"}),
        e.StopTool("t1"),
        e.StopModel(3),
        e.StartTimer("abort_grace", 2001),
        e.AppendEntry(msgspec.structs.replace(MESSAGE, text="hullo")),
    ]
    assert len({effect_digest(effect) for effect in asked}) == len(asked)
