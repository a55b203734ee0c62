"""Running a search in a process of its own, bounded in time, memory and output."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from nous.ports.tool import Outcome, ToolContext, ToolResult
from nous.system.process import find_program, spawn
from nous.system.python import own_program
from nous.system.supervise import Stopped, supervise
from nous.tools.blocking import Stop, off_the_loop
from nous.tools.failure import ToolFailure, quoted
from nous.tools.output import head_result
from nous.tools.paths import open_place, shown_path
from nous.tools.search_request import GrepQuery, SearchRequest, SearchSummary, encode_request, split_output

SEARCH_TIMEOUT_MS: Final = 30_000
SEARCH_MEMORY_BYTES: Final = 1024 * 1024 * 1024


class Search:
    """A planned search, which holds the directory that it starts in open.  Use it as a context manager."""

    def __init__(self, request: SearchRequest, note: str) -> None:
        self.request = request
        self.note = note

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A plan whose call was given up meanwhile is nobody's.
        self.close()

    def close(self) -> None:
        """Close the descriptor of the start."""
        if self.request["start_fd"] >= 0:
            os.close(self.request["start_fd"])
            self.request["start_fd"] = -1


async def run_search(
    search: Search, context: ToolContext, *, what: str, timeout_ms: int = SEARCH_TIMEOUT_MS
) -> ToolResult:
    """Return what was found, cut to its head, with notes on what is missing.  ``what``: matches, entries."""
    output = bytearray()

    async def receive(data: bytes) -> None:
        output.extend(data)

    request = search.request
    child = spawn(
        own_program("nous.tools.search_worker", encode_request(request)),
        cwd=Path("/"),
        env={"PATH": os.environ.get("PATH", os.defpath)},
        stderr="null",
        pass_fds=[request["start_fd"]],
    )
    ending = await supervise(child, receive, timeout_ms=timeout_ms, memory_limit_bytes=SEARCH_MEMORY_BYTES)
    found, summary = split_output(bytes(output))
    if summary is None:
        if ending.stopped is None:
            raise ToolFailure("The search failed: the process that searched died.")
        found = found[: found.rfind(b"\n") + 1]
    notes = _notes(summary, ending.stopped, request["limit"], what, timeout_ms)
    if not found and not notes:
        notes = [f"[No {what}]"]
    if search.note:
        notes.append(search.note)
    outcome: Outcome = "error" if summary is None else "ok"
    return await head_result(found + "\n".join(notes).encode(), context, outcome)


async def plan_search(
    given: str,
    context: ToolContext,
    *,
    glob: str | None,
    limit: int,
    grep: GrepQuery | None,
) -> Search:
    """Return a search below the path as it was given.

    Raises:
        ToolFailure: the path is not one that may be searched.
    """

    def plan(stop: Stop) -> Search:
        with open_place(given, context, may_read_outputs=grep is not None, takes_look_alikes=True) as place:
            mode = place.mode()
            is_directory = stat.S_ISDIR(mode)
            if not is_directory and grep is None:
                raise ToolFailure(f"{quoted(given)} is not a directory.")
            if not is_directory and not stat.S_ISREG(mode):
                raise ToolFailure(f"{quoted(given)} is not a regular file.")
            start = place.path if is_directory else place.path.parent
            shown = shown_path(start, context)
            state_dir = os.path.realpath(context.state_dir)
            request = SearchRequest(
                start=str(start),
                start_fd=place.open_directory() if is_directory else place.open_parent(),
                shown_start="" if shown == "." else f"{shown.rstrip('/')}/",
                file=None if is_directory else place.name,
                top=os.path.realpath(context.workdir),
                closed=[] if f"{start}/".startswith(f"{state_dir}/") else [state_dir],
                glob=glob,
                limit=limit,
                grep=grep,
            )
            return Search(request, place.note)

    return await off_the_loop(plan)


def find_ripgrep() -> str | None:
    """Return the path of ``rg``, if it is installed."""
    return find_program("rg", os.environ)


def _notes(summary: SearchSummary | None, stopped: Stopped | None, limit: int, what: str, timeout_ms: int) -> list[str]:
    if summary is None:
        reason = f"after {timeout_ms} ms" if stopped == "timeout" else "for its use of memory"
        return [f"[Stopped {reason}: what stands here is a part. Search less, or for something simpler]"]
    notes: list[str] = []
    if summary.has_more:
        notes.append(f"[There are more than {limit} {what}; narrow the search or raise `limit`]")
    if summary.unreadable:
        notes.append(f"[{summary.unreadable} directories could not be read]")
    return notes
