"""Sizes, cuts and plain summaries, against what a person would check by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.engine.summary import SUMMARY_BYTES, choose_cut, estimate_tokens, summarise
from nous.ports.model import ContextMessage
from nous.protocol.entries import SUMMARY_HEAD, Compaction, is_summary, summary_message
from nous.protocol.messages import (
    Block,
    ImageBlock,
    Message,
    Role,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolResultBlock,
)

NOW = "2026-11-21T10:00:00.000Z"


def said(role: Role, text: str = "", *blocks: Block) -> Message:
    return Message(id="m", role=role, text=text, created_at=NOW, blocks=blocks)


def call(call_id: str, name: str = "read", arguments: str = "{}") -> ToolCallBlock:
    return ToolCallBlock(call_id, name, arguments)


def result(call_id: str, text: str = "", *, is_error: bool = False) -> Message:
    return said("tool_result", text, ToolResultBlock(call_id, "read", text, is_error))


def context(*messages: Message) -> list[ContextMessage]:
    return [ContextMessage(message) for message in messages]


SUMMARY = summary_message(
    Compaction(id="c1", parent_id="a", summary="before", tokens_before=9, trigger="manual", by="model", created_at=NOW)
)


class TestTokens:
    @pytest.mark.parametrize(
        ("message", "tokens"),
        [
            (said("user"), 4),
            (said("user", "four"), 5),
            (said("user", "fours"), 6),
            (said("user", "äöü"), 6),
            (said("user", "x\udfff"), 5),
            (said("assistant", "counted once", TextBlock("counted once")), 7),
            (said("assistant", "", ThinkingBlock("hmm!", "signature"), call("id", "read", '{"a":1}1')), 8),
            (result("id", "12345678"), 6),
            (said("user", "see", TextBlock("see"), ImageBlock("image/png", "A" * 10_000)), 1505),
        ],
    )
    def test_four_bytes_a_token_three_where_it_is_not_ascii(self, message: Message, tokens: int) -> None:
        assert estimate_tokens(message) == tokens

    @given(st.text(max_size=200), st.text(max_size=200))
    def test_more_text_never_costs_less(self, first: str, more: str) -> None:
        assert 0 < estimate_tokens(said("user", first)) <= estimate_tokens(said("user", first + more))


@st.composite
def conversations(draw: st.DrawFn) -> list[ContextMessage]:
    """Turns as runs leave them: with rounds of tools, aborted ones, and call ids that come again."""
    out: list[Message] = [SUMMARY] if draw(st.booleans()) else []
    sizes = st.integers(0, 60).map(lambda size: "x" * size)
    for kind in draw(st.lists(st.sampled_from("uuatTo"), max_size=14)):
        if kind == "u":
            out.append(said("user", draw(sizes)))
        elif kind == "a":
            out.append(said("assistant", draw(sizes)))
        elif kind == "o":
            out.append(result("lost", draw(sizes)))
        else:
            ids = draw(st.lists(st.sampled_from(["c1", "c2", "c3"]), min_size=1, max_size=3, unique=True))
            out.append(said("assistant", draw(sizes), *map(call, ids)))
            answered = ids if kind == "t" else ids[: draw(st.integers(0, len(ids)))]
            out.extend(result(call_id, draw(sizes)) for call_id in answered)
    return context(*out)


def separates(path: list[ContextMessage], cut: int) -> bool:
    """Whether a result at or behind the cut has its call before it: by looking for each result's call."""
    for index in range(cut, len(path)):
        for block in path[index].message.blocks:
            if isinstance(block, ToolResultBlock):
                calls = [k for k in range(index) if block.tool_call_id in (c.id for c in path[k].message.tool_calls)]
                if calls and calls[-1] < cut:
                    return True
    return False


def tokens_from(path: list[ContextMessage], cut: int) -> int:
    return sum(estimate_tokens(item.message) for item in path[cut:])


class TestCut:
    @given(conversations(), st.integers(1, 150))
    def test_it_is_the_best_that_is_allowed(self, path: list[ContextMessage], keep_tokens: int) -> None:
        allowed = [
            k for k in range(len(path)) if (not separates(path, k) and path[k].message.role != "tool_result") or k == 0
        ]
        cut = choose_cut(path, keep_tokens)
        if not path or tokens_from(path, 0) <= keep_tokens:
            assert cut == 0
            return
        fitting = [k for k in allowed if tokens_from(path, k) <= keep_tokens]
        turns = [k for k in fitting if path[k].message.role == "user"]
        wanted = min(turns) if turns else min(fitting) if fitting else max(allowed)
        assert cut == (0 if wanted == 1 and is_summary(path[0].message) else wanted)
        assert not separates(path, cut)

    @given(conversations())
    def test_without_room_nothing_is_kept(self, path: list[ContextMessage]) -> None:
        is_nothing = not path or (len(path) == 1 and is_summary(path[0].message))
        assert choose_cut(path, 0) == (0 if is_nothing else len(path))

    def test_a_turn_that_begins_within_the_room_is_better_than_more(self) -> None:
        path = context(said("user", "x" * 400), said("assistant", "1"), said("user", "2"), said("assistant", "3"))
        assert choose_cut(path, 50) == 2
        assert choose_cut(path[:2], 50) == 1

    def test_a_result_longer_than_the_room_keeps_its_call(self) -> None:
        path = context(
            said("user", "go"), said("assistant", "", call("c1"), call("c2")), result("c1", "x" * 900), result("c2")
        )
        for keep_tokens in (1, 10, 100, 238):
            assert choose_cut(path, keep_tokens) == 1

    def test_the_question_that_waits_for_its_answer_stays(self) -> None:
        path = context(said("user", "a"), said("assistant", "b"), said("user", "x" * 10_000))
        assert choose_cut(path, 10) == 2

    def test_it_costs_the_same_for_each_message(self) -> None:
        """Quadratic work on a hundred thousand messages would not end."""
        path = context(*(said("user", "x") for _ in range(100_000)))
        assert choose_cut(path, 50) == 100_000 - 10


class TestSummary:
    def test_it_says_who_said_and_did_what(self) -> None:
        text = summarise(
            [
                said("user", "Read\n  the file"),
                said("assistant", "I will.", TextBlock("I will."), call("c1", "read", '{"path":"a/b.txt"}')),
                result("c1", "its text"),
                said("assistant", "", call("c2", "bash", '{"command":"ls"}'), call("c3", "read", '{"path":"c"}')),
                result("c2", "no", is_error=True),
                said("assistant", "Done."),
            ]
        )
        assert text.split("\n") == [
            "Files: a/b.txt, c",
            "",
            "- User: Read the file",
            "- Assistant: I will.",
            '- Called read: {"path":"a/b.txt"}',
            "- read answered: its text",
            '- Called bash: {"command":"ls"}',
            '- Called read: {"path":"c"}',
            "- read failed: no",
            "- Assistant: Done.",
        ]

    def test_an_earlier_summary_and_the_instruction_come_first(self) -> None:
        text = summarise([SUMMARY, said("user", "More.")], "keep  the\nnames")
        assert text == "What matters: keep the names\n\nbefore\n\n- User: More."

    def test_of_nothing_it_is_empty(self) -> None:
        assert summarise([]) == ""
        assert summarise([said("assistant", " ")]) == ""

    def test_the_oldest_lines_go_first(self) -> None:
        lines = summarise([said("user", f"{n} " + "x" * 200) for n in range(100)]).split("\n")
        left_out = 100 - (len(lines) - 1)
        assert lines[0] == f"- ({left_out} earlier lines are left out)"
        assert lines[1].startswith(f"- User: {left_out} x")
        assert lines[-1].startswith("- User: 99 x")

    def test_a_long_text_says_that_it_goes_on(self) -> None:
        assert summarise([said("user", "word " + " " * 5000 + "more")]) == "- User: word ..."

    def test_the_last_files_are_named_if_there_are_too_many(self) -> None:
        calls = [call(f"c{n}", "read", f'{{"path":"{n:03}-{"d" * 40}"}}') for n in range(60)]
        files = summarise([said("assistant", "", *calls)]).split("\n")[0].removeprefix("Files: ").split(", ")
        assert [path[:3] for path in files] == [f"{n:03}" for n in range(60 - len(files), 60)]
        assert len(", ".join(files)) <= 1024

    @pytest.mark.parametrize("arguments", ["", "[]", "no json", '{"path":1}', '{"path":""}', '{"path":"a\\nb"}'])
    def test_what_is_no_path_is_no_file(self, arguments: str) -> None:
        assert "Files" not in summarise([said("assistant", "", call("c1", "read", arguments))])

    @given(st.lists(st.text(max_size=3000), max_size=30), st.text(max_size=3000), st.text(max_size=20_000))
    def test_it_is_bounded_and_always_the_same(self, texts: list[str], instruction: str, earlier: str) -> None:
        before = said("user", SUMMARY_HEAD + earlier)
        messages = [before, *(said("user", text) for text in texts), *(result("c", text) for text in texts)]
        text = summarise(messages, instruction)
        assert text == summarise(messages, instruction)
        assert len(text.encode()) <= SUMMARY_BYTES

    def test_summaries_of_summaries_do_not_grow(self) -> None:
        text = "the beginning"
        for n in range(50):
            text = summarise([said("user", SUMMARY_HEAD + text), said("user", f"{n}" * 1000)])
            assert len(text.encode()) <= SUMMARY_BYTES
        assert text.startswith("the beginning")


def test_a_summary_is_a_message_of_the_user_with_the_id_of_its_compaction() -> None:
    assert (SUMMARY.id, SUMMARY.role, SUMMARY.text, SUMMARY.created_at) == ("c1", "user", SUMMARY_HEAD + "before", NOW)
    assert is_summary(SUMMARY)
    assert not is_summary(said("assistant", SUMMARY.text))
    assert not is_summary(said("user", "before"))
