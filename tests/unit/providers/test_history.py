"""Histories made fit: every call has its result, every result its call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nous.ports.model import ContextMessage
from nous.protocol.messages import ImageBlock, Message, TextBlock, ThinkingBlock, ToolCallBlock, ToolResultBlock
from nous.providers.history import MISSING_RESULT_TEXT, repair_history


def user(text: str = "hi") -> ContextMessage:
    return ContextMessage(Message(id="u", role="user", text=text, created_at=""))


def assistant(*calls: str, text: str = "", message_id: str = "a") -> ContextMessage:
    blocks = tuple(ToolCallBlock(id=call, name="read", arguments="{}") for call in calls)
    return ContextMessage(Message(id=message_id, role="assistant", text=text, created_at="", blocks=blocks))


def results(*calls: str) -> ContextMessage:
    blocks = tuple(ToolResultBlock(tool_call_id=c, tool_name="read", text=f"of {c}", is_error=False) for c in calls)
    return ContextMessage(Message(id="r", role="tool_result", text="", created_at="", blocks=blocks))


def repair(messages: Sequence[ContextMessage]) -> list[ContextMessage]:
    return repair_history(messages).after(0)


def shape(messages: list[ContextMessage]) -> list[str]:
    """One word per message: ``user``, ``assistant:a,b``, ``result:a``, ``missing:b``."""
    out = []
    for item in messages:
        found = [b for b in item.message.blocks if isinstance(b, ToolResultBlock)]
        if item.message.role != "tool_result":
            out.append(":".join([item.message.role, ",".join(c.id for c in item.message.tool_calls)]).rstrip(":"))
        else:
            kind = "missing" if all(b.text == MISSING_RESULT_TEXT and b.is_error for b in found) else "result"
            out.append(f"{kind}:{','.join(b.tool_call_id for b in found)}")
    return out


def test_a_sound_history_is_returned_as_it_is() -> None:
    messages = [user(), assistant("a", "b"), results("b"), results("a"), assistant(text="done"), user()]
    assert repair(messages) == messages


def test_missing_results_stand_behind_those_that_are_there() -> None:
    messages = [user(), assistant("a", "b", "c"), results("b"), user()]
    assert shape(repair(messages)) == ["user", "assistant:a,b,c", "result:b", "missing:a,c", "user"]


def test_calls_at_the_very_end_are_answered_too() -> None:
    assert shape(repair([user(), assistant("a")])) == ["user", "assistant:a", "missing:a"]


def test_results_nobody_asked_for_are_left_out() -> None:
    messages = [results("x"), user(), assistant("a"), results("a", "x"), results("a"), user(), results("a")]
    assert shape(repair(messages)) == ["user", "assistant:a", "result:a", "user"]


def test_a_result_that_comes_too_late_is_replaced() -> None:
    messages = [assistant("a"), user(), results("a")]
    assert shape(repair(messages)) == ["assistant:a", "missing:a", "user"]


def test_silent_assistant_messages_are_skipped() -> None:
    thought = Message(id="a", role="assistant", text="", created_at="", blocks=(ThinkingBlock(text="hm"),))
    assert repair([assistant(), ContextMessage(thought)]) == []


def test_a_result_without_its_block_is_left_out() -> None:
    bare = Message(id="r", role="tool_result", text="x", created_at="", blocks=(TextBlock(text="x"),))
    assert shape(repair([assistant("a"), ContextMessage(bare)])) == ["assistant:a", "missing:a"]


CALLS = st.lists(st.sampled_from("abc"), max_size=3)
MESSAGES = st.lists(
    st.one_of(
        st.builds(user),
        CALLS.map(lambda calls: assistant(*calls)),
        CALLS.map(lambda calls: assistant(*calls, text="text")),
        CALLS.map(lambda calls: results(*calls)),
    ),
    max_size=12,
)


@given(MESSAGES)
def test_every_call_has_one_result_before_anyone_else_speaks(messages: list[ContextMessage]) -> None:
    waiting: list[str] = []
    for item in repair(messages):
        message = item.message
        if message.role == "tool_result":
            for block in message.blocks:
                assert isinstance(block, ToolResultBlock)
                waiting.remove(block.tool_call_id)
        else:
            assert waiting == []
            assert message.text or message.tool_calls
            waiting = [call.id for call in message.tool_calls]
    assert waiting == []


@given(MESSAGES)
def test_repair_is_deterministic_and_keeps_what_people_said(messages: list[ContextMessage]) -> None:
    repaired = repair(messages)
    assert shape(repaired) == shape(repair(messages))
    assert shape(repaired) == shape(repair(repaired))
    assert [m for m in repaired if m.message.role == "user"] == [m for m in messages if m.message.role == "user"]


def test_an_id_that_was_used_before_gets_another_one_on_both_sides() -> None:
    """Some vendors count their calls anew in every answer; others refuse two calls with one id."""
    first, second = assistant("read:0"), assistant("read:0", "b", message_id="m2")
    messages = [user(), first, results("read:0"), user(), second, results("b"), results("read:0")]
    repaired = repair(messages)
    assert shape(repaired) == [
        "user",
        "assistant:read:0",
        "result:read:0",
        "user",
        "assistant:m2-read:0,b",
        "result:b",
        "result:m2-read:0",
    ]
    assert [item for item in repaired if item in messages] == [*messages[:4], messages[5]]
    assert second.message.tool_calls[0].id == "read:0"


def test_a_missing_result_of_a_renamed_call() -> None:
    messages = [assistant("a"), results("a"), assistant("a"), user()]
    assert shape(repair(messages)) == ["assistant:a", "result:a", "assistant:a-a", "missing:a-a", "user"]


def test_images_stay_with_the_results_that_stay() -> None:
    png, gif = ImageBlock("image/png", "x"), ImageBlock("image/gif", "y")
    kept, unexpected = results("a").message.blocks[0], results("x").message.blocks[0]
    message = Message(id="r", role="tool_result", text="", created_at="", blocks=(unexpected, gif, kept, png))
    repaired = repair([assistant("a"), ContextMessage(message)])
    assert repaired[1].message.blocks == (kept, png)
    sound = ContextMessage(Message(id="r", role="tool_result", text="", created_at="", blocks=(kept, png)))
    assert repair([assistant("a"), sound])[1] is sound


# -- paths that grow and part


def afresh(messages: list[ContextMessage]) -> list[str]:
    """Repair copies of which nothing is known, and return every repaired message."""
    return [repr(item.message) for item in repair([ContextMessage(m.message) for m in messages])]


@given(MESSAGES, MESSAGES, MESSAGES)
def test_a_path_that_grows_and_branches_is_repaired_as_if_it_were_seen_at_once(
    trunk: list[ContextMessage], one: list[ContextMessage], other: list[ContextMessage]
) -> None:
    root = user("first of all")
    for branch in (one, other, [*one, user("later")]):
        path = [root, *trunk, *branch]
        for length in range(len(path) + 1):
            grown = path[:length]
            assert [repr(item.message) for item in repair(grown)] == afresh(grown)


def test_what_is_settled_is_not_looked_at_again() -> None:
    class Watched(list[ContextMessage]):
        def __getitem__(self, index: Any) -> Any:
            found = super().__getitem__(index)
            looked_at.extend(found if isinstance(found, list) else [found])
            return found

    looked_at: list[ContextMessage] = []
    path = Watched()
    for turn in range(50):
        path += [user(), assistant(f"c{turn}"), results(f"c{turn}"), assistant(text="done")]
        looked_at.clear()
        assert len(repair(path)) == len(path)
        # The first, two turns back and forth to find out where to go on, and the same from there.
        assert len(looked_at) <= 1 + 2 * 8


def test_a_run_of_many_calls_is_settled_answer_by_answer() -> None:
    path = [user()]
    for number in range(50):
        path += [assistant(f"c{number}"), results(f"c{number}")]
        history = repair_history(path)
        assert history.after(0) == path
        assert history.tail == path[-2:]


def test_paths_share_what_is_settled_until_they_part() -> None:
    path = [user(), assistant(text="a"), user()]
    trunk = repair_history(path).trunk
    assert repair_history([*path, assistant(text="b"), user()]).trunk is trunk
    assert repair_history([*path, assistant(text="c"), user()]).trunk is not trunk
    assert repair_history(path).after(0) == path
