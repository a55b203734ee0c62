"""Messages of a conversation, as they stand in a session and in the answer to ``get_messages``.

Source: protocol v1, section 4 (messages).  The garbage collector does not track these structs (``gc=False``): they hold
no cycles, and looking through hundreds of thousands of them would hold up the event loop.
"""

from typing import Final, Literal, Self

from msgspec import UNSET, Struct, UnsetType

Role = Literal["user", "assistant", "tool_result"]
TurnKind = Literal["prompt", "steer", "follow_up"]
StopReason = Literal["stop", "length", "tool_use", "refusal", "other", "error", "aborted"]


class TextBlock(Struct, frozen=True, gc=False, tag="text"):
    """Text."""

    text: str


class ThinkingBlock(Struct, frozen=True, gc=False, tag="thinking", omit_defaults=True):
    """What the model thought; ``signature`` is what some vendors want back unchanged.

    A signature means nothing to any other model than the one its message names.  Several blocks of one message stand
    in the order in which they came.
    """

    text: str
    signature: str | None = None


class ToolCallBlock(Struct, frozen=True, gc=False, tag="tool_call"):
    """A call the model asked for; ``arguments`` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


class ToolResultBlock(Struct, frozen=True, gc=False, tag="tool_result"):
    """The result of a tool call."""

    tool_call_id: str
    tool_name: str
    text: str
    is_error: bool


IMAGE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What all vendors take that take images at all."""


class ImageBlock(Struct, frozen=True, gc=False, tag="image"):
    """An image; ``data`` is base64.  Behind a tool result it belongs to that result."""

    mime_type: str
    data: str


Block = TextBlock | ThinkingBlock | ToolCallBlock | ToolResultBlock | ImageBlock


class Usage(Struct, frozen=True, gc=False, kw_only=True):
    """Tokens of one model call, or of all calls of a run.

    Among ``input_tokens`` are ``cached_tokens``, read from the vendor's cache, and ``cache_write_tokens``, written into
    it, where a vendor counts these; among ``output_tokens`` are ``reasoning_tokens``.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int | UnsetType = UNSET

    def plus(self, other: Self) -> Self:
        """Return the sum of both."""
        return type(self)(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cache_write_tokens=_sum(self.cache_write_tokens, other.cache_write_tokens),
        )


def _sum(one: int | UnsetType, other: int | UnsetType) -> int | UnsetType:
    if one is UNSET or other is UNSET:
        return one if other is UNSET else other
    return one + other


class Message(Struct, frozen=True, gc=False, kw_only=True, tag="message", omit_defaults=True):
    """One message of a session.  ``id`` is the session entry's id and the ``message_id`` of its events.

    ``parent_id`` is ``""`` (left out on the wire) at the root.  ``created_at`` is RFC 3339 UTC.  ``provider`` and
    ``model`` say who wrote an assistant message; ``images_left_out`` names the messages before it whose images the
    provider had refused, so that it was written without them: no later request on this path holds these images.
    ``text_omitted`` and ``text_bytes`` are set only in answers, where the message itself would not fit a line.
    """

    id: str
    parent_id: str = ""
    role: Role
    text: str
    run_id: str = ""
    turn_kind: TurnKind | None = None
    created_at: str
    blocks: tuple[Block, ...] = ()
    provider: str = ""
    model: str = ""
    images_left_out: tuple[str, ...] = ()
    text_bytes: int = 0
    text_omitted: bool = False

    @property
    def tool_calls(self) -> tuple[ToolCallBlock, ...]:
        """The message's tool calls, in order."""
        return tuple(b for b in self.blocks if isinstance(b, ToolCallBlock))


class TreeNode(Struct, frozen=True, kw_only=True):
    """A message in a session's tree, without its content."""

    id: str
    parent_id: str
    role: Role
    snippet: str
