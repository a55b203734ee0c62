"""What every dialect does with a session's messages before they become its own: one place for each rule.  Pure.

- A message is encoded once per dialect and model, and kept: a request is joined, not written anew
  (:mod:`nous.providers.chunks` joins what is over).
- Thinking goes back only to the model it came from: signatures mean nothing to another one, which refuses them.
- Ids and names of tool calls are fitted to what the vendor takes; the same id always becomes the same one.
- An image the model does not take is a clear refusal, never left out in silence.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from nous.errors import NousError
from nous.ports.model import ContextMessage, ToolSpec
from nous.protocol.messages import (
    IMAGE_TYPES,
    Block,
    ImageBlock,
    Message,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolResultBlock,
)

EMPTY_TEXT: Final = "(no text)"
"""Stands for a text without a visible character where a vendor refuses the whole request for one."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""What every vendor takes as the name of a tool; Gemini wants no digit in front."""

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
_DOT: Final = "-dot-"
_DIGESTED: Final = re.compile(r".*-x[0-9a-f]{16}", re.DOTALL)
_DIGEST_CHARS: Final = 16
_CLEANED_CHARS: Final = 46

encode_json: Final = msgspec.json.Encoder().encode


class MessageEncoder:
    """Encodes messages with ``translate``, which returns what one message is in the dialect: objects of a list.

    ``key`` names the dialect and all that the encoding depends on; the bytes are kept with the message under it.
    """

    def __init__(self, key: str, translate: Callable[[Message], Sequence[object]]) -> None:
        self.key = key
        self._translate = translate

    def encode(self, item: ContextMessage) -> bytes:
        """Return the objects of one message, joined with commas."""
        wire = item.wire.get(self.key)
        if wire is None:
            wire = item.wire[self.key] = b",".join(map(encode_json, self._translate(item.message)))
        return wire

    def forget(self, messages: Iterable[ContextMessage]) -> None:
        """Let go of what is kept with these messages; it is made anew if it is asked for."""
        for item in messages:
            item.wire.pop(self.key, None)


class VendorTurn(NamedTuple):
    """Messages one after the other that one side said: vendors with strict turns want them as one."""

    is_model: bool
    messages: list[ContextMessage]


def group_turns(messages: Iterable[ContextMessage]) -> list[VendorTurn]:
    """Return the messages as turns of the user's and of the model's side."""
    turns: list[VendorTurn] = []
    for item in messages:
        is_model = item.message.role == "assistant"
        if not turns or turns[-1].is_model is not is_model:
            turns.append(VendorTurn(is_model, []))
        turns[-1].messages.append(item)
    return turns


def said_blocks(message: Message, provider: str, model: str) -> Iterator[Block]:
    """Yield the blocks of an assistant message that ``model`` may see: without the thinking of any other."""
    if not message.blocks and message.text:
        yield TextBlock(message.text)
    is_own = message.provider == provider and message.model == model
    for block in message.blocks:
        if is_own or not isinstance(block, ThinkingBlock):
            yield block


def images_of(message: Message) -> list[ImageBlock]:
    """Return a message's images."""
    return [block for block in message.blocks if isinstance(block, ImageBlock)]


def results_of(message: Message) -> list[tuple[ToolResultBlock, list[ImageBlock]]]:
    """Return the results of a message, each with the images that stand behind it."""
    results: list[tuple[ToolResultBlock, list[ImageBlock]]] = []
    for block in message.blocks:
        if isinstance(block, ToolResultBlock):
            results.append((block, []))
        elif isinstance(block, ImageBlock) and results:
            results[-1][1].append(block)
    return results


def check_image(image: ImageBlock, model: str, *, taken: bool | None) -> ImageBlock:
    """Return ``image`` if the model takes it, or if it is not known whether it does.

    Raises:
        NousError: ``capability_unavailable``.
    """
    if taken is False:
        hint = "Choose a model that does, or say in provider.models_file that this one does."
        raise NousError("capability_unavailable", f"images: the model {model} takes none", hint=hint)
    if image.mime_type not in IMAGE_TYPES:
        raise NousError("capability_unavailable", f"images: only {', '.join(sorted(IMAGE_TYPES))}")
    return image


def data_url(image: ImageBlock) -> str:
    """Return an image as a ``data:`` URL."""
    return f"data:{image.mime_type};base64,{image.data}"


def visible(text: str) -> str:
    """Return ``text``, or what stands for it if nothing of it can be seen."""
    return text if text.strip() else EMPTY_TEXT


class CallIds:
    """Fits ids of tool calls to ``pattern``: one that fits stays, any other becomes a digest of itself."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern)

    def fit(self, call_id: str) -> str:
        """Return an id as the vendor takes it: itself, or a digest of it."""
        if self._pattern.fullmatch(call_id):
            return call_id
        return "call_" + hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()[:24]


def fit_name(name: str) -> str:
    """Return a tool's name as every vendor takes it.  It depends on the name alone; different names stay different.

    A dot becomes ``-dot-``.  A name that does not fit even so ends in a digest of itself, and so does one that looks
    like the result of either rule.
    """
    if _NAME.fullmatch(name) and _DOT not in name and not _DIGESTED.fullmatch(name):
        return name
    dotted = name.replace(".", _DOT)
    if _NAME.fullmatch(dotted) and dotted.replace(_DOT, ".") == name and not _DIGESTED.fullmatch(dotted):
        return dotted
    cleaned = _NOT_IN_NAMES.sub("_", name)[:_CLEANED_CHARS] or "unnamed"
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]
    return f"{cleaned if cleaned[0].isalpha() else '_' + cleaned[1:]}-x{digest}"


def own_names(tools: Sequence[ToolSpec]) -> dict[str, str]:
    """Return the tools' own names for those on the wire, as far as they differ."""
    return {fitted: tool.name for tool in tools if (fitted := fit_name(tool.name)) != tool.name}


def arguments_of(call: ToolCallBlock) -> msgspec.Raw:
    """Return a call's arguments as a JSON object; what the model wrote that is none stands in one as text."""
    text = call.arguments or "{}"
    return as_json(text, dict) or msgspec.Raw(encode_json({"not_an_object": text}))


def as_json(text: str, kind: type) -> msgspec.Raw | None:
    """Return ``text`` to be joined into a request if it is JSON of that kind."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return msgspec.Raw(text.encode()) if isinstance(value, kind) else None
