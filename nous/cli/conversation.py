"""Sessions for a terminal, and as JSON: a list of them, one conversation, a tree, the verdict of a check."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, Final, NamedTuple

from nous.cli.terminal import Ink, Style
from nous.cli.timeline import snippet
from nous.protocol.entries import Compaction
from nous.protocol.messages import Message, ToolResultBlock
from nous.store.session import Session
from nous.store.session_index import SessionPage
from nous.store.verify import VerifyReport

_SNIPPET_CHARACTERS: Final = 60
_STYLES: Final[dict[str, Style]] = {"user": "cyan", "assistant": "plain", "tool_result": "dim"}


class Conversation(NamedTuple):
    """A session up to a leaf.  ``compaction`` is the one in force there; ``context`` is what a model is asked with."""

    session_id: str
    parent_id: str
    created_at: str
    updated_at: str
    leaf_id: str
    messages: list[Message]
    compaction: Compaction | None
    context_messages: int
    context_tokens: int
    is_pruned: bool


def read_conversation(session: Session, leaf_id: str | None) -> Conversation:
    """Return what there is up to a leaf (None: the active one).  Raises ``invalid_payload`` for an unknown one."""
    leaf_id = session.leaf_id if leaf_id is None else leaf_id
    path = session.path(leaf_id)
    messages = [known.message for known in session.full_path(leaf_id)]
    return Conversation(
        session_id=session.id,
        parent_id=session.parent_id,
        created_at=session.created_at,
        updated_at=session.updated_at,
        leaf_id=leaf_id,
        messages=messages,
        compaction=session.compactions.get(path.compaction_id),
        context_messages=len(path),
        context_tokens=path.estimated_tokens,
        is_pruned=bool(messages[0].parent_id if messages else leaf_id),
    )


def conversation_json(found: Conversation) -> dict[str, Any]:
    """Return a conversation as ``--json`` shows it."""
    return {
        "session_id": found.session_id,
        "parent_id": found.parent_id,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
        "leaf_id": found.leaf_id,
        "pruned": found.is_pruned,
        "context": {"messages": found.context_messages, "tokens": found.context_tokens},
        "compaction": found.compaction,
        "messages": found.messages,
    }


def write_conversation(ink: Ink, found: Conversation) -> None:
    """Write a conversation."""
    ink.line((found.session_id, "bold"))
    about = [f"leaf {found.leaf_id}" if found.leaf_id else "no messages"]
    if found.parent_id:
        about.append(f"branched from {found.parent_id}")
    about.append(f"a model sees {found.context_messages} messages, about {found.context_tokens} tokens")
    ink.line((", ".join(about), "dim"))
    made = found.compaction
    if found.is_pruned:
        ink.line(("(older messages were pruned)", "yellow"))
    if made is not None and not any(message.id == made.first_kept_entry_id for message in found.messages):
        _write_summary(ink, made)
    for message in found.messages:
        if made is not None and message.id == made.first_kept_entry_id:
            _write_summary(ink, made)
        _write_message(ink, message)
    ink.flush()


def _write_summary(ink: Ink, made: Compaction) -> None:
    ink.line()
    ink.line(("summary", "yellow"), (f"  {made.by}, {made.trigger}; all before stands for the model in this", "dim"))
    _write_text(ink, made.summary)


def _write_message(ink: Ink, message: Message) -> None:
    ink.line()
    ink.line((message.role, _STYLES[message.role]), (f"  {message.id}  {message.created_at}", "dim"))
    _write_text(ink, message.text)
    for call in message.tool_calls:
        ink.line("  ", (f"calls {call.name}", "green"), f"  {snippet(call.arguments)}")


def _write_text(ink: Ink, text: str) -> None:
    for line in text.rstrip("\n").split("\n") if text else ():
        ink.line("  ", line)


def write_sessions(ink: Ink, page: SessionPage, root: Path) -> None:
    """Write a page of sessions."""
    if not page.sessions:
        ink.line("no sessions in ", str(root))
        ink.flush()
        return
    width = max(len(info.session_id) for info in page.sessions)
    ink.line((f"{'SESSION':<{width}}  {'CHANGED':<24}  {'MESSAGES':>8}  BEGINS", "dim"))
    for info in page.sessions:
        ink.line(
            (f"{info.session_id:<{width}}  ", "bold"),
            f"{info.updated_at:<24}  {info.message_count:>8}  {snippet(info.snippet, _SNIPPET_CHARACTERS)}",
        )
    if page.next_cursor is not None:
        ink.line((f"more: --cursor '{page.next_cursor}'", "dim"))
    ink.flush()


def write_tree(ink: Ink, session: Session) -> None:
    """Write all messages: a conversation goes straight down, a branch is set in below where it leaves."""
    children: defaultdict[str, list[Message]] = defaultdict(list)
    for known in session.messages.values():
        # Below what was pruned there may be several roots.
        above = known.message.parent_id if known.message.parent_id in session.messages else ""
        children[above].append(known.message)
    made_at: defaultdict[str, list[Compaction]] = defaultdict(list)
    for made in session.compactions.values():
        made_at[made.parent_id].append(made)
    ink.line((session.id, "bold"))
    waiting = [(message, 0) for message in reversed(children[""])]
    while waiting:
        message, depth = waiting.pop()
        _write_node(ink, message, depth, is_leaf=message.id == session.leaf_id)
        for made in made_at[message.id]:
            about = f"compacted ({made.by}, {made.trigger}): {snippet(made.summary, _SNIPPET_CHARACTERS)}"
            ink.line("  " * depth, ("~ ", "yellow"), (about, "dim"))
        below = children[message.id]
        # The first child goes on in the same column; the others come before it, set in.
        waiting += [(child, depth) for child in below[:1]]
        waiting += [(child, depth + 1) for child in reversed(below[1:])]
    ink.flush()


def _write_node(ink: Ink, message: Message, depth: int, *, is_leaf: bool) -> None:
    results = [block.tool_name for block in message.blocks if isinstance(block, ToolResultBlock)]
    calls = [f"calls {call.name}" for call in message.tool_calls]
    label = ", ".join(results) or message.role
    text = " ".join(filter(None, (snippet(message.text, _SNIPPET_CHARACTERS), *calls)))
    mark: tuple[str, Style] = ("* ", "green") if is_leaf else ("- ", "plain")
    ink.line("  " * depth, mark, (label, _STYLES[message.role]), f"  {text}", (f"  {message.id}", "dim"))


def write_verdict(ink: Ink, report: VerifyReport) -> None:
    """Write what the check of a session found."""
    style: Style = "green" if report.ok else "red"
    about = f"{report.lines} lines, {report.messages} messages, {report.first_n} to {report.last_n}"
    ink.line(("ok   " if report.ok else "BAD  ", style), report.file, (f"  {about}" if report.ok else "", "dim"))
    for place, what in ((report.damage, "damaged"), (report.torn, "torn")):
        if place is not None:
            ink.line(f"     line {place.line}, byte {place.offset}: {what}: {place.reason}")
