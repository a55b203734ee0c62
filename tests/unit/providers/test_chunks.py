"""Requests joined from what is kept: byte for byte what they are when nothing is, whatever was asked before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.ports.model import ContextMessage
from nous.protocol.messages import Message, TextBlock
from nous.providers import chunks
from nous.providers.adapter import Adapter
from nous.providers.chunks import CHUNK_MESSAGES, Chunks
from nous.providers.history import repair_history
from nous.providers.presets import PRESETS
from nous.providers.registry import build_adapter
from nous.providers.settings import ProviderSettings
from nous.providers.wire import MessageEncoder
from tests.support.vendor_histories import HISTORIES, rounds
from tests.support.vendor_requests import PNG, READ, calls, request, result, results, said, user

VENDORS = ["openai", "openrouter", "deepseek", "openai-responses", "anthropic", "gemini"]
"""Every dialect, and what presets change in the one that has several."""

Path = list[ContextMessage]


@contextmanager
def chunks_of(count: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_MESSAGES", count)
        yield


def adapter_for(vendor: str, model: str = "m") -> Adapter:
    return build_adapter(vendor, ProviderSettings(model=model, api_key="k"))


def body(adapter: Adapter, path: Sequence[ContextMessage]) -> bytes:
    return adapter.build(request(*path, system="Be nous.", tools=(READ,))).body


def afresh(vendor: str, model: str, path: Path) -> bytes:
    """Return the body that an adapter makes at once, of messages nothing is known of, without a chunk."""
    with chunks_of(1_000_000):
        return body(adapter_for(vendor, model), [ContextMessage(item.message) for item in path])


@st.composite
def more(draw: st.DrawFn, name: str) -> Path:
    """What comes next: answers with their results, questions one after the other, something of no use."""
    out: Path = []
    for number in range(draw(st.integers(1, 4))):
        out += draw(rounds(number))
        if draw(st.booleans()):
            out.append(user(f"{name}.{number}"))
    return out


def some_path(draw: st.DrawFn, paths: list[Path]) -> Path:
    # The newest is what is gone on with most of the time.
    return paths[-1] if draw(st.booleans()) else draw(st.sampled_from(paths))


@st.composite
def conversations(draw: st.DrawFn) -> list[Path]:
    """Return paths in the order in which they are asked with: they grow, branch, and are compacted."""
    paths: list[Path] = [draw(HISTORIES)]
    for step in range(draw(st.integers(1, 8))):
        path = some_path(draw, paths)
        cut = draw(st.integers(1, len(path)))
        match draw(st.sampled_from(["grow", "grow", "branch", "summary", "compact", "again"])):
            case "grow":
                paths.append([*path, *draw(more(f"g{step}"))])
            case "branch":
                paths.append([*path[:cut], *draw(more(f"b{step}"))])
            case "summary":
                paths.append([*path[:cut], user("Summarise.")])
            case "compact":
                paths.append([user(f"summary {step}"), *path[cut:]])
            case _:
                paths.append(path)
    return paths


@pytest.mark.parametrize("vendor", VENDORS)
@given(conversations(), st.sampled_from([1, 2, 5]), st.data())
def test_a_request_is_the_same_whatever_was_asked_before(
    vendor: str, paths: list[Path], count: int, data: st.DataObject
) -> None:
    """The model changes now and then and back again, and so does the vendor: each finds what it has kept."""
    asked = {(vendor, "m"): adapter_for(vendor), (vendor, "other"): adapter_for(vendor, "other")}
    asked["anthropic", "elsewhere"] = adapter_for("anthropic", "elsewhere")
    with chunks_of(count):
        for path in paths:
            whose = data.draw(st.sampled_from([(vendor, "m"), *asked]))
            assert body(asked[whose], path) == afresh(*whose, path)


@pytest.mark.parametrize("vendor", VENDORS)
@given(messages=HISTORIES, count=st.integers(1, 4))
def test_a_conversation_grows_message_by_message(vendor: str, messages: Path, count: int) -> None:
    adapter = adapter_for(vendor)
    with chunks_of(count):
        for length in range(1, len(messages) + 1):
            assert body(adapter, messages[:length]) == afresh(vendor, "m", messages[:length])


def turns(count: int, start: int = 0) -> Path:
    """Return turns with a tool round and an image each, as a session has them."""
    out: Path = []
    for number in range(start, start + count):
        out += [
            user(f"question {number}"),
            said(calls(f"c{number}"), message_id=f"a{number}"),
            results(result(f"c{number}"), PNG),
            said(TextBlock(f"answer {number}")),
        ]
    return out


@pytest.mark.parametrize("vendor", sorted(PRESETS))
def test_a_long_session_is_asked_with_what_was_kept_and_what_is_new(vendor: str) -> None:
    adapter = adapter_for(vendor)
    path = turns(100)
    before = adapter.build(request(*path)).parts
    asked = adapter.build(request(*path, *turns(1, 100))).parts
    kept = [part for part in asked if len(part) > 2000 and any(part is one for one in before)]
    assert len(kept) == len(path) // CHUNK_MESSAGES
    assert sum(map(len, asked)) - sum(map(len, kept)) < CHUNK_MESSAGES * 500
    assert b"".join(asked) == adapter.build(request(*turns(101))).body


def test_branches_share_what_they_have_in_common() -> None:
    adapter = adapter_for("openai")
    path = turns(100)
    first = adapter.build(request(*path, user("one"))).parts
    adapter.build(request(*path, user("one"), said(TextBlock("yes")), user("more")))
    other = adapter.build(request(*path[:201], said(TextBlock("no")), user("other"))).parts
    assert sum(len(part) > 2000 and any(part is one for one in first) for part in other) == 201 // CHUNK_MESSAGES


# -- what is kept


class Plain:
    """A dialect in which a message is its text, with all that it was asked to encode."""

    def __init__(self, refused: str = "") -> None:
        self.seen: list[str] = []
        self._refused = refused
        self.encoder = MessageEncoder("plain", self._translate)
        self.chunks = Chunks(self._join, self.encoder)

    def ask(self, path: Path) -> bytes:
        begun, rest = self.chunks.split(repair_history(path))
        return b"".join([*begun, self._join(rest)])

    def _translate(self, message: Message) -> list[object]:
        if message.text == self._refused:
            raise NousError("capability_unavailable")
        self.seen.append(message.text)
        return [message.text]

    def _join(self, messages: Sequence[ContextMessage]) -> bytes:
        return b",".join(map(self.encoder.encode, messages))


def words(count: int, start: int = 0) -> Path:
    return [
        user(str(number)) if number % 2 == 0 else said(TextBlock(str(number))) for number in range(start, start + count)
    ]


def test_a_message_is_encoded_once_and_kept_once() -> None:
    plain, path = Plain(), words(1)
    while len(path) < 1000:
        plain.ask(path)
        path += words(2, len(path))
    plain.ask(path)
    assert plain.seen == [str(number) for number in range(1001)]
    kept = repair_history(path).trunk.chunks["plain"]
    assert [chunk.end for chunk in kept] == [CHUNK_MESSAGES * (n + 1) for n in range(len(kept))]
    assert len(path) - kept[-1].end < 2 * CHUNK_MESSAGES
    assert [bool(item.wire) for item in path] == [number >= kept[-1].end for number in range(len(path))]


def test_what_is_over_is_encoded_anew_only_where_a_branch_leaves_a_chunk() -> None:
    plain, path = Plain(), words(1001)
    plain.ask(path)
    plain.seen.clear()
    branch = [*path[:500], *words(1, 2000)]
    plain.ask([*path, *words(2, 1001)])
    assert plain.ask(branch) == b",".join(b'"%d"' % number for number in [*range(500), 2000])
    assert [int(word) for word in plain.seen if int(word) < 1000] == list(range(500 - 500 % CHUNK_MESSAGES, 500))


def test_what_cannot_be_encoded_leaves_nothing_half_kept() -> None:
    plain, path = Plain(refused="100"), words(201)
    for _ in range(2):
        with pytest.raises(NousError):
            plain.ask(path)
    assert [chunk.end for chunk in repair_history(path).trunk.chunks["plain"]] == [CHUNK_MESSAGES]
    assert Plain().ask(path) == b",".join(b'"%d"' % number for number in range(201))


def test_one_side_that_says_everything_is_kept_in_no_chunk() -> None:
    """Where a turn would end in the request depends on what comes behind it."""
    plain, path = Plain(), [user(str(number)) for number in range(300)]
    assert plain.ask(path) == b",".join(b'"%d"' % number for number in range(300))
    assert repair_history(path).trunk.chunks["plain"] == []
