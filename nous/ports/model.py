"""The provider port: what a model call is asked with and what comes back, whoever the vendor is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from nous.protocol.messages import Message, Usage

Purpose = Literal["answer", "compaction"]


class TextDelta(Struct, frozen=True, tag="text"):
    """A piece of the answer.  Never empty, never with a lone surrogate, never longer than a line may be."""

    text: str


class ThinkingDelta(Struct, frozen=True, tag="thinking", omit_defaults=True):
    """A piece of the model's thinking; ``signature`` comes once, at its end, from vendors that need it back."""

    text: str
    signature: str | None = None


class ToolCallDelta(Struct, frozen=True, tag="tool_call", omit_defaults=True):
    """A fragment of a tool call.  ``index`` tells calls of one answer apart; ``id`` and ``name`` come once."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class UsageReport(Struct, frozen=True, tag="usage"):
    """Tokens of this call so far; a later report replaces an earlier one."""

    usage: Usage


FinishReason = Literal["stop", "length", "tool_use", "refusal"]


class Finish(Struct, frozen=True, tag="finish"):
    """The model closed its answer.  Exactly one per successful call; at most a usage report follows it."""

    reason: FinishReason


ModelItem = TextDelta | ThinkingDelta | ToolCallDelta | UsageReport | Finish


class ContextMessage:
    """A message of the context with its encodings, one per dialect, made once and joined into every request.

    ``wire`` belongs to the provider adapters: a dialect's name -> the message's bytes in that dialect.  So does
    ``before``: what they found out about the messages before this one, so that a longer path costs its new part.
    """

    __slots__ = ("before", "message", "wire")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.wire: dict[str, bytes] = {}
        self.before: object = None


class ToolSpec(Struct, frozen=True):
    """A tool as it is offered to the model: ``schema`` is the JSON Schema of its arguments."""

    name: str
    description: str
    schema: dict[str, Any]


class ModelRequest:
    """One model call, provider-neutral.  ``call`` counts the calls of a run from 1."""

    __slots__ = ("call", "messages", "purpose", "run_id", "session_id", "system", "tools")

    def __init__(
        self,
        *,
        run_id: str,
        session_id: str,
        call: int,
        system: str,
        messages: Sequence[ContextMessage],
        tools: Sequence[ToolSpec],
        purpose: Purpose = "answer",
    ) -> None:
        self.run_id = run_id
        self.session_id = session_id
        self.call = call
        self.system = system
        self.messages = messages
        self.tools = tools
        self.purpose = purpose


class Provider(Protocol):
    """A model behind some vendor's interface.

    ``stream`` opens one call; iterating gives lists of items, one list per network read, in order, with exactly
    one :class:`Finish` if the call succeeded.  Leaving the context closes the connection at once.  Anything that
    goes wrong is a :class:`nous.errors.NousError` with a provider code; cancellation passes through untouched.
    At most one list is read from the network before it is asked for: that is the back-pressure.
    """

    name: str
    model: str

    @property
    def builds(self) -> int:
        """How many times the underlying client was made (one per daemon, or 0 before the first call)."""
        ...

    @property
    def summarises(self) -> bool:
        """Whether it can be asked for a summary of a conversation (purpose ``compaction``)."""
        ...

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[list[ModelItem]]]: ...

    async def warm(self) -> None:
        """Load what the first call will need.  Asked for once the daemon is ready; must not be relied on."""
        ...

    async def aclose(self) -> None: ...


MAX_DELTA_BYTES: Final = 128 * 1024
"""Deltas are split so that none is longer: as JSON (up to six bytes a character) a line stays under 1 MiB."""
