"""Long answers in pages: as many items as fit a line, and a cursor for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from nous.errors import NousError
from nous.ports.model import ContextMessage
from nous.protocol.messages import Message, TreeNode
from nous.system.steps import Steps

ENVELOPE_BYTES: Final = 4096
"""Room for everything around the items of a page."""

SNIPPET_CHARACTERS: Final = 80

_MAX_NODES: Final = 20_000
_NODES_PER_STEP: Final = 500

_encode: Final = msgspec.json.Encoder().encode

Item = TypeVar("Item")
Source = TypeVar("Source")


def page_messages(
    path: Sequence[ContextMessage], cursor: str | None, max_bytes: int
) -> tuple[list[Message], str | UnsetType]:
    """Return one page of a path, and the cursor of the next page if there is one."""
    budget = max_bytes - ENVELOPE_BYTES
    return _page(path, cursor, budget, lambda entry: _fitting(entry.message, budget))


def page_tree(
    messages: Mapping[str, ContextMessage], cursor: str | None, max_bytes: int
) -> Steps[tuple[list[TreeNode], str | UnsetType]]:
    """Return, in steps, one page of a session's messages as nodes, in the order of the file."""
    start = _start(cursor, len(messages))
    total = len(messages)
    # Taken out at once: the session may grow between two steps.
    entries = list(islice(messages.values(), start, start + _MAX_NODES))
    budget = max_bytes - ENVELOPE_BYTES
    nodes: list[TreeNode] = []
    for entry in entries:
        node = _node(entry.message)
        budget -= len(_encode(node)) + 1
        if budget < 0 and nodes:
            break
        nodes.append(node)
        if len(nodes) % _NODES_PER_STEP == 0:
            yield
    after = start + len(nodes)
    return nodes, UNSET if after == total else str(after)


def _page(
    source: Sequence[Source], cursor: str | None, budget: int, make: Callable[[Source], Item]
) -> tuple[list[Item], str | UnsetType]:
    start = _start(cursor, len(source))
    out: list[Item] = []
    for index in range(start, len(source)):
        item = make(source[index])
        budget -= len(_encode(item)) + 1
        if budget < 0 and out:
            return out, str(index)
        out.append(item)
    return out, UNSET


def _start(cursor: str | None, length: int) -> int:
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdigit() or int(cursor[:12]) > length:
        raise NousError("invalid_payload", "cursor: not one that nous gave")
    return int(cursor[:12])


def _fitting(message: Message, max_bytes: int) -> Message:
    """Return the message, or what of it fits a line: its text is then only measured."""
    if len(_encode(message)) < max_bytes:
        return message
    return msgspec.structs.replace(
        message, text="", blocks=(), text_bytes=len(message.text.encode()), text_omitted=True
    )


def _node(message: Message) -> TreeNode:
    snippet = " ".join(message.text[: SNIPPET_CHARACTERS * 2].split())[:SNIPPET_CHARACTERS]
    return TreeNode(id=message.id, parent_id=message.parent_id, role=message.role, snippet=snippet)
