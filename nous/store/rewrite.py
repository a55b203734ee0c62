"""A session's file without what was pruned: its lines chained anew behind the last line of the old file."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import msgspec
from msgspec import Struct

from nous.store.disk import Disk
from nous.store.lines import read_lines
from nous.store.pruning import plan_pruning
from nous.store.session_format import (
    MAX_LINE_BYTES,
    Entry,
    EntryLink,
    chain_line,
    check_line,
    decode_entry,
    decode_header,
    encode_line,
    unchained,
)
from nous.store.session_log import SessionLog


class PruneReport(Struct, frozen=True, kw_only=True):
    """What pruning did; with nothing to remove the file is untouched and both sides are the same."""

    removed_messages: int
    lines_before: int
    lines_after: int
    bytes_before: int
    bytes_after: int


class Rewritten(NamedTuple):
    """The new file, and what will be known of it once it is in place."""

    data: bytes
    log: SessionLog
    report: PruneReport


def rewrite(disk: Disk, fd: int, log: SessionLog, retain: int) -> Rewritten | None:
    """Return the file without the messages that :func:`plan_pruning` lets go, or None if all of them stay.

    ``log`` is all of the file.  The new header continues the chain: its number follows that of the last line, and its
    ``prev`` is that line's digest, so that no number is used twice and an old copy of the file still fits before it.
    What stays keeps its bytes but for its place in the chain.
    """
    contents, entries = _read_contents(disk, fd, log)
    plan = plan_pruning(entries, log.tree, retain)
    if not plan.removed_messages:
        return None
    header = msgspec.structs.replace(log.header, copied=0, pruned=plan.pruned, models=plan.models)
    line, link = encode_line(header, log.link)
    lines, after = [line], SessionLog(header, link, len(line))
    for place, changed in plan.kept.items():
        if changed is None:
            line, link = chain_line(contents[place], link)
        else:
            line, link = encode_line(changed, link)
        after.take(changed or entries[place], link, len(line))
        lines.append(line)
    after.forget_own()
    report = PruneReport(
        removed_messages=plan.removed_messages,
        lines_before=log.line_count,
        lines_after=after.line_count,
        bytes_before=log.end,
        bytes_after=after.end,
    )
    return Rewritten(b"".join(lines), after, report)


def _read_contents(disk: Disk, fd: int, log: SessionLog) -> tuple[list[bytes], list[Entry]]:
    """Return the own part of each line behind the header, and the entries they are."""
    contents: list[bytes] = []
    entries: list[Entry] = []
    link: EntryLink | None = None
    for line in chain.from_iterable(read_lines(disk, fd, 0, log.end, MAX_LINE_BYTES)):
        if link is None:
            _, link = decode_header(line)
            continue
        contents.append(unchained(line, link))
        entries.append(decode_entry(line))
        link = check_line(line, link)
    return contents, entries
