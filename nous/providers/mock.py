"""A provider without a model: deterministic, offline, and as faulty as its script wants.

Without a script it streams ``mock response: <the user's text>`` in several deltas.  A script
(:mod:`nous.providers.script`) lists model calls.  They are used up in order over the daemon's life, whoever asks:
a request takes the first call left whose ``match`` fits it, so sessions that run side by side are told apart by
``match`` and otherwise share the list in the order of their requests.  A retry is a request like any other.  When no
call fits, the answer is the default one.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from nous.errors import NousError
from nous.ports.model import Finish, ModelItem, ModelRequest, TextDelta, ThinkingDelta, ToolCallDelta, UsageReport
from nous.protocol.messages import Usage
from nous.protocol.text import clean
from nous.providers.faults import CUT, ErrorReply, fault_of_reply
from nous.providers.script import ScriptedCall, ScriptedError, ScriptedToolCall, Step, TextRepeat, Thinking, load_script
from nous.providers.settings import ProviderSettings
from nous.providers.text import TextChannel, clean_pieces

DEFAULT_MODEL: Final = "mock"
ECHO_PREFIX: Final = "mock response: "

_PIECE_CHARS: Final = 8
_MOST_PIECES: Final = 64
_CHARS_PER_TOKEN: Final = 4


class MockProvider:
    """See :class:`nous.ports.model.Provider` for what it promises."""

    name = "mock"
    builds = 0

    def __init__(self, settings: ProviderSettings) -> None:
        self.model = settings.model or DEFAULT_MODEL
        self._idle_ms = settings.stream_idle_timeout_ms
        self._calls = load_script(settings.script) if settings.script is not None else []
        self._taken = 0

    @property
    def summarises(self) -> bool:
        """Only if its script has an answer for that: an echo is no summary."""
        return any(c.match is not None and c.match.purpose == "compaction" for c in self._calls)

    async def warm(self) -> None:
        """There is nothing to prepare."""

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[list[ModelItem]]]:
        """Play the next call of the script, or echo."""
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[list[ModelItem]]]:
        call = self._take(request)
        if call is None:
            lists = _echo(_last_user_text(request))
        else:
            lists = _Performance(self._taken, self._idle_ms).play(call.steps)
        async with aclosing(lists):
            yield lists

    def _take(self, request: ModelRequest) -> ScriptedCall | None:
        for position, call in enumerate(self._calls):
            if _fits(call, request):
                self._taken += 1
                return self._calls.pop(position)
        return None

    async def aclose(self) -> None:
        """There is nothing to close."""


def _fits(call: ScriptedCall, request: ModelRequest) -> bool:
    match = call.match
    return (
        match.session_id in (None, request.session_id)
        and match.purpose in (None, request.purpose)
        and (match.text is None or match.text in _last_user_text(request))
    )


def _last_user_text(request: ModelRequest) -> str:
    return next((item.message.text for item in reversed(request.messages) if item.message.role == "user"), "")


async def _echo(text: str) -> AsyncGenerator[list[ModelItem], None]:
    answer = ECHO_PREFIX + text
    count = min(_MOST_PIECES, -(-len(answer) // _PIECE_CHARS))
    await checkpoint()
    yield [TextDelta(piece) for piece in clean_pieces(_cut(answer, count))]
    await checkpoint()
    yield [UsageReport(Usage(input_tokens=_tokens(text), output_tokens=_tokens(answer))), Finish("stop")]


def _cut(text: str, count: int) -> list[str]:
    """Cut ``text`` into ``count`` pieces of nearly the same length, or fewer if it has fewer characters."""
    size = len(text)
    count = max(1, min(count, size))
    return [text[size * n // count : size * (n + 1) // count] for n in range(count)]


def _tokens(text: str) -> int:
    return -(-len(text) // _CHARS_PER_TOKEN)


class _Performance:
    """One scripted call as it is given.  ``number`` counts the script's calls from 1: it makes tool call ids."""

    def __init__(self, number: int, idle_ms: int) -> None:
        self._number = number
        self._idle_ms = idle_ms
        self._text = TextChannel()
        self._tool_calls = 0
        self._finished = False

    async def play(self, steps: list[Step]) -> AsyncGenerator[list[ModelItem], None]:
        for step in steps:
            await checkpoint()
            if step.text_repeat is not None:
                for batch in _repeat(step.text_repeat):
                    await checkpoint()
                    yield batch
            elif step.delay_ms is not None:
                await self._be_silent(step.delay_ms)
            elif step.hang:
                await self._be_silent(self._idle_ms + 1)
            elif batch := self._perform(step):
                yield batch
        if not self._finished:
            await checkpoint()
            yield self._close(Finish("tool_use" if self._tool_calls else "stop"))

    def _perform(self, step: Step) -> list[ModelItem]:
        if step.text is not None:
            return [TextDelta(piece) for delta in _as_list(step.text) for piece in self._text.feed(delta)]
        if step.thinking is not None:
            return _think(step.thinking)
        if step.tool_call is not None:
            return self._call_tool(step.tool_call)
        if step.usage is not None:
            return [UsageReport(step.usage.as_usage())]
        if finish := step.finish_item:
            return self._close(finish)
        raise _failure(step.error)

    def _call_tool(self, call: ScriptedToolCall) -> list[ModelItem]:
        index = self._tool_calls
        self._tool_calls += 1
        arguments = call.arguments if isinstance(call.arguments, str) else _as_json(call.arguments)
        fragments = clean_pieces(_cut(arguments, call.fragments))
        return [
            ToolCallDelta(index, clean(call.id or f"call_{self._number}_{index}"), clean(call.name)),
            *(ToolCallDelta(index, arguments=fragment) for fragment in fragments),
        ]

    def _close(self, finish: Finish) -> list[ModelItem]:
        self._finished = True
        return [*map(TextDelta, self._text.flush()), finish]

    async def _be_silent(self, delay_ms: int) -> None:
        """Say nothing, as long as a real connection would be borne with."""
        await anyio.sleep(min(delay_ms, self._idle_ms) / 1000)
        if delay_ms > self._idle_ms:
            raise NousError("provider_unavailable", f"idle: nothing was received in {self._idle_ms} ms")


def _repeat(step: TextRepeat) -> Iterator[list[ModelItem]]:
    """Give ``count`` equal deltas in constant memory."""
    delta = [TextDelta(piece) for piece in clean_pieces([step.text])]
    left = step.count
    while left and delta:
        size = min(step.chunk, left)
        left -= size
        yield [*delta] * size


def _think(thinking: str | Thinking) -> list[ModelItem]:
    if isinstance(thinking, str):
        thinking = Thinking(thinking)
    out: list[ModelItem] = [ThinkingDelta(piece) for piece in clean_pieces(_as_list(thinking.text))]
    if thinking.signature is not None:
        out.append(ThinkingDelta("", clean(thinking.signature)))
    return out


def _failure(error: ScriptedError | None) -> NousError:
    if error is None:
        return NousError("provider_unavailable", CUT)
    code, cause, retry_after_ms = error.code, error.cause, error.retry_after_ms
    if code is None:
        fault = fault_of_reply(ErrorReply(error.status or 0, "", b"", retry_after_ms))
        code, cause, retry_after_ms = fault.code, fault.cause if cause is None else cause, fault.retry_after_ms
    return NousError(code, cause, retry_after_ms=retry_after_ms, image_refused=error.image_refused)


def _as_json(arguments: dict[str, Any]) -> str:
    # Lone surrogates, which msgspec refuses, become U+FFFD where the text is cut into pieces.
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))


def _as_list(text: str | list[str]) -> list[str]:
    return [text] if isinstance(text, str) else text
