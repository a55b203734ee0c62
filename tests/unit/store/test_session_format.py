from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.protocol.entries import Compaction, ModelChange
from nous.protocol.messages import ImageBlock, Message, TextBlock, ToolCallBlock, ToolResultBlock
from nous.store.session_format import (
    ORIGIN,
    SEAL_BYTES,
    Checkpoint,
    Entry,
    EntryLink,
    LeafMove,
    SessionHeader,
    UnreadableLineError,
    chain_line,
    check_line,
    decode_entry,
    decode_header,
    encode_line,
    unchained,
)
from tests.unit.store.helpers import NOW, compaction, message

HEADER = SessionHeader(format=1, id="s1", created_at=NOW)
FULL = Message(
    id="r.1",
    parent_id="r.0",
    role="assistant",
    text='a\n\u2028\U0001f600\x00"\\',
    run_id="r",
    turn_kind="follow_up",
    created_at=NOW,
    blocks=(
        TextBlock("t"),
        ToolCallBlock("c1", "read", '{"path":"x"}'),
        ToolResultBlock("c1", "read", "y", is_error=False),
        ImageBlock("image/png", "AAAA"),
    ),
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = texts.filter(bool)
entries: st.SearchStrategy[Entry] = st.one_of(
    st.builds(
        Message, id=ids, parent_id=texts, role=st.sampled_from(["user", "assistant"]), text=texts, created_at=texts
    ),
    st.builds(LeafMove, id=ids, parent_id=texts, leaf_id=ids, created_at=texts),
    st.builds(
        Compaction,
        id=ids,
        parent_id=ids,
        summary=texts,
        first_kept_entry_id=texts,
        tokens_before=st.integers(0, 10**9),
        trigger=st.sampled_from(["manual", "threshold", "overflow"]),
        by=st.sampled_from(["model", "deterministic"]),
        instruction=texts,
        created_at=texts,
    ),
    st.builds(ModelChange, id=ids, parent_id=texts, provider=texts, model=texts, created_at=texts),
    st.builds(Checkpoint, id=ids, parent_id=texts, created_at=texts),
)


def test_lines_look_as_documented() -> None:
    header, link = encode_line(HEADER, ORIGIN)
    assert header.startswith(
        b'{"type":"session","format":1,"id":"s1","created_at":"%b","n":0,"prev":"",' % NOW.encode()
    )
    line, _ = encode_line(FULL, link)
    decoded = json.loads(line)
    assert list(decoded)[:2] == ["type", "id"]
    assert list(decoded)[-3:] == ["n", "prev", "digest"]
    assert decoded["n"] == 1
    assert decoded["prev"] == json.loads(header)["digest"]
    assert line.endswith(b'","digest":"%b"}\n' % decoded["digest"].encode())
    assert line.count(b"\n") == 1
    move, _ = encode_line(LeafMove(id="l1", parent_id="a", leaf_id="b", created_at=NOW), link)
    assert move.startswith(b'{"type":"leaf","id":"l1","parent_id":"a","leaf_id":"b","created_at":"')
    line, _ = encode_line(compaction("k1", "b", "a"), link)
    assert line.startswith(
        b'{"type":"compaction","id":"k1","parent_id":"b","summary":"summary k1","first_kept_entry_id"'
    )
    line, _ = encode_line(ModelChange(id="p1", provider="x", model="y", created_at=NOW), link)
    assert line.startswith(b'{"type":"model","id":"p1","provider":"x","model":"y","created_at":"')
    line, _ = encode_line(Checkpoint(id="p2", parent_id="b", created_at=NOW), link)
    assert line.startswith(b'{"type":"checkpoint","id":"p2","parent_id":"b","created_at":"')
    pruned = SessionHeader(format=1, id="s1", created_at=NOW, pruned={"b": "k1"})
    assert b'"pruned":{"b":"k1"},"n":8,' in encode_line(pruned, EntryLink(7, b"0" * 32))[0]


@given(st.lists(entries, max_size=5))
def test_what_was_written_is_read(written: list[Entry]) -> None:
    line, link = encode_line(HEADER, ORIGIN)
    assert decode_header(line[:-1]) == (HEADER, link)
    for entry in [*written, FULL]:
        line, following = encode_line(entry, link)
        assert check_line(line[:-1], link) == following
        assert decode_entry(line[:-1]) == entry
        link = following


def test_any_changed_byte_is_found() -> None:
    _, link = encode_line(HEADER, ORIGIN)
    line = encode_line(FULL, link)[0][:-1]
    for at in range(len(line)):
        for flip in (0x01, 0x20, 0x80):
            damaged = line[:at] + bytes([line[at] ^ flip]) + line[at + 1 :]
            with pytest.raises(UnreadableLineError):
                check_line(damaged, link)


def test_any_cut_is_found() -> None:
    line, link = encode_line(HEADER, ORIGIN)
    for size in range(len(line) - 1):
        with pytest.raises(UnreadableLineError):
            decode_header(line[:size])
    line, _ = encode_line(FULL, link)
    for size in range(len(line) - 1):
        with pytest.raises(UnreadableLineError):
            check_line(line[:size], link)


def test_a_line_belongs_to_its_place() -> None:
    _, link = encode_line(HEADER, ORIGIN)
    line, after = encode_line(message("a"), link)
    for wrong in (after, EntryLink(link.n + 1, link.digest), EntryLink(link.n, b"0" * 32), ORIGIN):
        with pytest.raises(UnreadableLineError, match="does not follow"):
            check_line(line[:-1], wrong)


def test_the_seal_is_what_the_digest_leaves_out() -> None:
    line, link = encode_line(message("a"), ORIGIN)
    assert line[-SEAL_BYTES - 1 :] == link.digest + b'"}\n'


def test_an_unknown_kind_is_newer_not_damaged() -> None:
    line = b'{"type":"hologram","id":"x"}'
    with pytest.raises(UnreadableLineError) as caught:
        decode_entry(line)
    assert caught.value.newer


def test_a_header_of_another_format_is_newer() -> None:
    line, _ = encode_line(SessionHeader(format=2, id="s1", created_at=NOW), ORIGIN)
    with pytest.raises(UnreadableLineError, match="format 2") as caught:
        decode_header(line[:-1])
    assert caught.value.newer


def test_a_header_may_go_on_counting() -> None:
    """So that a file whose older entries were pruned still names what it continues."""
    before = EntryLink(41, b"0123456789abcdef" * 2)
    line, link = encode_line(HEADER, before)
    assert json.loads(line)["n"] == 42
    assert json.loads(line)["prev"] == before.digest.decode()
    assert decode_header(line[:-1]) == (HEADER, link)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"type":"session"}',
        b'{"n":0,"prev":"\\ud800"}',
        encode_line(message("a"), ORIGIN)[0][:-1],
    ],
)
def test_what_is_no_header_is_refused(line: bytes) -> None:
    with pytest.raises(UnreadableLineError):
        decode_header(line)


@given(st.lists(entries, max_size=4), st.integers(-1, 10**9))
def test_a_line_can_be_chained_anew_without_being_decoded(written: list[Entry], n: int) -> None:
    old, new = EntryLink(3, b"a" * 32), EntryLink(n, b"b" * 32)
    for entry in [*written, FULL]:
        line, old_after = encode_line(entry, old)
        assert chain_line(unchained(line[:-1], old), new) == encode_line(entry, new)
        old, new = old_after, encode_line(entry, new)[1]
