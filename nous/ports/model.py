"""The provider port: what a model call is asked with and what comes back, whoever the vendor is."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Literal, NamedTuple, Protocol

from msgspec import Struct

from nous.protocol.entries import ThinkingLevel
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


FinishReason = Literal["stop", "length", "tool_use", "refusal", "other"]
"""``length``: the answer was cut, by a limit of tokens.  ``other``: it ended for a reason that nous does not know."""


class Finish(Struct, frozen=True, tag="finish", omit_defaults=True):
    """The answer has ended.  Exactly one per successful call; at most a usage report follows it.

    ``word`` is the vendor's own reason where ``reason`` is ``other``.
    """

    reason: FinishReason
    word: str = ""


ModelItem = TextDelta | ThinkingDelta | ToolCallDelta | UsageReport | Finish


class ContextMessage(Struct, gc=False, eq=False):
    """A message of the context with its encodings, one per dialect, made once and joined into every request.

    ``wire`` belongs to the provider adapters: a dialect's name -> the message's bytes in that dialect.  So do
    ``before``: what they found out about the messages before this one, so that a longer path costs its new part; and
    ``untooled``: what this message is in a request that offers no tools.  The two may be part of cycles, which the
    garbage collector does not see: whoever drops a session's messages calls :meth:`forget`.
    """

    message: Message
    wire: dict[str, bytes] = {}
    before: object = None
    untooled: "ContextMessage | None" = None

    def forget(self) -> None:
        """Drop what adapters found out about it, but for its encodings."""
        untooled, self.untooled, self.before = self.untooled, None, None
        if untooled is not None:
            untooled.before = untooled.untooled = None


class ToolSpec(Struct, frozen=True):
    """A tool as it is offered to the model: ``schema`` is the JSON Schema of its arguments."""

    name: str
    description: str
    schema: dict[str, Any]


class ModelRequest:
    """One model call, provider-neutral.  ``call`` counts the calls of a run from 1.

    ``output_schema``: the answer is to be one JSON value that is valid against this JSON Schema, nothing else.
    """

    __slots__ = ("call", "messages", "output_schema", "purpose", "run_id", "session_id", "system", "tools")

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
        output_schema: dict[str, Any] | None = None,
    ) -> None:
        self.run_id = run_id
        self.session_id = session_id
        self.call = call
        self.system = system
        self.messages = messages
        self.tools = tools
        self.purpose = purpose
        self.output_schema = output_schema


class Prices(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """List prices of one model in US dollars per million tokens; None: not known.

    The ``long_`` prices are for calls whose prompt is longer than ``long_prompt_tokens``, all tokens of them.
    """

    input_usd_per_mtok: float
    output_usd_per_mtok: float
    cached_usd_per_mtok: float | None = None
    cache_write_usd_per_mtok: float | None = None
    long_prompt_tokens: int | None = None
    long_input_usd_per_mtok: float | None = None
    long_cached_usd_per_mtok: float | None = None
    long_cache_write_usd_per_mtok: float | None = None
    long_output_usd_per_mtok: float | None = None

    def cost_usd(self, usage: Usage) -> float | None:
        """Return what one call cost; None if that is not known.

        Of one call, not of a sum of calls: the length of each prompt decides its price.
        """
        is_long = self.long_prompt_tokens is not None and usage.input_tokens > self.long_prompt_tokens
        read = self.long_input_usd_per_mtok if is_long else self.input_usd_per_mtok
        cached = self.long_cached_usd_per_mtok if is_long else self.cached_usd_per_mtok
        written = self.long_output_usd_per_mtok if is_long else self.output_usd_per_mtok
        kept = self.long_cache_write_usd_per_mtok if is_long else self.cache_write_usd_per_mtok
        from_cache = min(usage.cached_tokens, usage.input_tokens)
        into_cache = min(usage.cache_write_tokens or 0, usage.input_tokens - from_cache)
        if read is None or written is None or (into_cache and kept is None):
            return None
        dollars = (
            (usage.input_tokens - from_cache - into_cache) * read
            + from_cache * (read if cached is None else cached)
            + into_cache * (kept or 0)
            + usage.output_tokens * written
        )
        return round(dollars / 1_000_000, 9)


class ModelChoice(Struct, frozen=True):
    """Who is to answer.  ``thinking`` None: as much as its vendor lets it."""

    provider: str
    model: str
    thinking: ThinkingLevel | None = None


class ModelFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known about a model beforehand; None: not known."""

    context_tokens: int | None = None
    max_output_tokens: int | None = None
    takes_images: bool | None = None
    prices: Prices | None = None


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

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[list[ModelItem]]]:
        """Make a model call; the context gives its items in batches as they arrive."""

    async def warm(self) -> None:
        """Load what the first call will need.  Asked for once the daemon is ready; must not be relied on."""
        ...

    async def aclose(self) -> None:
        """Close the provider's connections."""


class KnownModel(NamedTuple):
    """A model that can be chosen, as far as is known without asking anybody."""

    name: str
    facts: ModelFacts


class KnownProvider(NamedTuple):
    """A provider that can be chosen.  ``is_ready``: it has its key, or needs none."""

    name: str
    title: str
    is_ready: bool
    models: tuple[KnownModel, ...]


class Catalogue(Protocol):
    """Every model that runs can choose, and the providers that were built for them, once each.

    ``default`` is what a run uses that asks for nothing else.
    """

    default: ModelChoice

    @property
    def builds(self) -> int:
        """How many times an underlying client was made, over all providers."""
        ...

    def find(self, choice: ModelChoice) -> Provider:
        """Return what answers for ``choice``; made when it is first asked for.  Nothing is connected.

        Raises a :class:`nous.errors.NousError` with a code of the wire: ``invalid_payload`` for a provider nobody
        knows, ``provider_auth`` without its key, ``capability_unavailable`` for thinking the model does not have.
        """
        ...

    def facts(self, provider: str, model: str) -> ModelFacts:
        """Return what is known of a model."""

    def known(self) -> list[KnownProvider]:
        """Return all providers with the models that are known."""

    async def aclose(self) -> None:
        """Close the connections of all providers."""


MAX_DELTA_BYTES: Final = 128 * 1024
"""Deltas are split so that none is longer: as JSON (up to six bytes a character) a line stays under 1 MiB."""
