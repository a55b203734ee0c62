"""What a run is made with: everything about it that is known before its first input."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from nous.ports.extensions import HookName
from nous.ports.model import Prices
from nous.protocol.commands import QueueMode
from nous.protocol.messages import Message

ENGINE_VERSION: Final = 1
"""Raised by a change that makes the same inputs give other events or effects."""

INLINE_TEXT_BYTES: Final = 256 * 1024
"""A longer text is only measured in the events that would repeat it (protocol v1, section 1)."""

SHOWN_OUTPUT_BYTES: Final = 64 * 1024
"""How much of a tool's result an update holds, at most."""

_encode = msgspec.json.Encoder().encode


class EngineLimits(Struct, frozen=True, kw_only=True):
    """Bounds that decide what a run does; they stand in its trace.

    0 is what held when the first traces were recorded: of ``max_event_bytes`` that lines of events are not bounded, of
    ``compact_at_tokens`` that nothing is compacted by size, of ``max_retries`` that no call is made again.
    ``retry_seed`` stands for the run among others that wait (:mod:`nous.engine.retry`).
    """

    max_model_calls: int = 64
    abort_grace_ms: int = 2000
    max_message_bytes: int = 32 * 1024 * 1024
    inline_text_bytes: int = INLINE_TEXT_BYTES
    max_event_bytes: int = 0
    compact_at_tokens: int = 0
    max_retries: int = 0
    retry_first_delay_ms: int = 500
    retry_max_delay_ms: int = 8_000
    retry_total_ms: int = 15_000
    retry_seed: int = 0


class RunSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fixed part of a run.

    ``leaf_id`` is the entry the run attaches to (``""``: the root); ``context_digest`` stands for the messages up to
    it, about ``context_tokens`` long, and ``system_digest`` for the system prompt.  ``known_tools`` are all registered
    tools, ``active_tools`` those offered to the model; ``hooks`` are those that extensions listen to.

    ``thinking`` is how much the model was asked to think (``""``: as its vendor has it), ``prices`` what its tokens
    cost, None if that is not known.  With an ``output_schema`` the answer has to be one JSON value that fits it;
    ``output_tools`` says that tools may be used on the way there.

    ``answer_form`` says how an answer becomes a message: 1, as the first traces have it, with all thinking joined and
    first; 2, with its parts in the order they came, and the names of who wrote it.  ``runs_cut_calls``: the tool calls
    of an answer that was cut are run, as it was when the first traces were recorded.

    ``shows_tool_output``: a call whose tool streamed nothing has one update with its result, bounded, before its end.
    ``error_reasons``: the ``message`` of an ``error`` holds the cause too.  Neither was so when the first traces were
    recorded.
    """

    run_id: str
    session_id: str
    leaf_id: str
    provider: str
    model: str
    context_digest: str
    context_tokens: int = 0
    system_digest: str
    known_tools: tuple[str, ...]
    active_tools: tuple[str, ...]
    steering_mode: QueueMode
    follow_up_mode: QueueMode
    limits: EngineLimits
    thinking: str = ""
    prices: Prices | None = None
    output_schema: dict[str, Any] | None = None
    output_tools: bool = False
    answer_form: Literal[1, 2] = 1
    runs_cut_calls: bool = True
    shows_tool_output: bool = False
    error_reasons: bool = False
    hooks: tuple[HookName, ...] = ()


EMPTY_CONTEXT: Final = hashlib.sha256(b"nous context v1").hexdigest()


def chain_digest(previous: str, message: Message) -> str:
    """Return the digest of a context from the digest of all but its last message, and that message."""
    return hashlib.sha256(previous.encode() + b"\n" + _encode(message)).hexdigest()


def request_digest(context: str, system: str, tools: tuple[str, ...], images_left_out: tuple[str, ...] = ()) -> str:
    """Return the digest of a provider-neutral request."""
    left_out = (f"images left out: {message_id}" for message_id in images_left_out)
    return hashlib.sha256("\n".join((context, system, *tools, *left_out)).encode()).hexdigest()


def schema_digest(schema: Mapping[str, Any]) -> str:
    """Return a digest of an output schema as the prompt brought it."""
    return hashlib.sha256(_encode(schema)).hexdigest()
