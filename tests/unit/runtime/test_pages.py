"""Pages: joined they are the whole, and each fits its line."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from nous.errors import NousError
from nous.ports.model import ContextMessage
from nous.protocol.messages import Message, TextBlock
from nous.runtime.pages import ENVELOPE_BYTES, SNIPPET_CHARACTERS, page_messages, page_tree
from nous.system.steps import complete

MAX_BYTES = 16 * 1024


def entry(number: int, text: str) -> ContextMessage:
    parent = f"m{number - 1}" if number else ""
    return ContextMessage(
        Message(id=f"m{number}", parent_id=parent, role="user", text=text, created_at="", blocks=(TextBlock(text),))
    )


texts = st.lists(st.text(max_size=50) | st.integers(1, 9000).map(lambda n: "\u20ac" * n), max_size=30)


@given(texts)
def test_pages_of_messages(given_texts: list[str]) -> None:
    path = [entry(number, text) for number, text in enumerate(given_texts)]
    found: list[Message] = []
    cursor = None
    while True:
        page, after = page_messages(path, cursor, MAX_BYTES)
        assert len(msgspec.json.encode(page)) <= MAX_BYTES - ENVELOPE_BYTES + 2
        found += page
        if after is UNSET:
            break
        assert page
        assert isinstance(after, str)
        cursor = after
    assert [m.id for m in found] == [e.message.id for e in path]
    for shown, known in zip(found, (e.message for e in path), strict=True):
        if shown.text_omitted:
            assert (shown.text, shown.blocks, shown.text_bytes) == ("", (), len(known.text.encode()))
        else:
            assert shown == known


@given(st.integers(0, 300))
def test_pages_of_a_tree(count: int) -> None:
    messages = {f"m{n}": entry(n, "\u0001" * 200) for n in range(count)}
    found: list[str] = []
    cursor = None
    while True:
        nodes, after = complete(page_tree(messages, cursor, MAX_BYTES))
        assert len(msgspec.json.encode(nodes)) <= MAX_BYTES - ENVELOPE_BYTES + 2
        found += [node.id for node in nodes]
        if after is UNSET:
            break
        assert isinstance(after, str)
        cursor = after
    assert found == list(messages)


def test_a_snippet_is_one_short_line() -> None:
    [node], _ = complete(page_tree({"m0": entry(0, "  one\n\ttwo\u2028three " + "x" * 500)}, None, MAX_BYTES))
    assert node.snippet.startswith("one two three xxx")
    assert len(node.snippet) == SNIPPET_CHARACTERS


@pytest.mark.parametrize("cursor", ["", "x", "-1", "3", "1.0", "\u0663", " 1", "9" * 1000])
def test_a_cursor_that_was_never_given(cursor: str) -> None:
    path = [entry(number, "x") for number in range(2)]
    with pytest.raises(NousError) as caught:
        page_messages(path, cursor, MAX_BYTES)
    assert caught.value.code == "invalid_payload"
    with pytest.raises(NousError):
        complete(page_tree({e.message.id: e for e in path}, cursor, MAX_BYTES))


def test_a_page_behind_the_last_one_is_empty() -> None:
    assert page_messages([entry(0, "x")], "1", MAX_BYTES) == ([], UNSET)
