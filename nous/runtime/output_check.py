"""Checking an answer against a schema without ever holding up the daemon.

A pattern of a schema can take longer than anybody lives, and nothing else of the interpreter runs meanwhile: schemas
with patterns are checked in a process of their own, which is bounded and can be killed.  All others are in a thread.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from nous.errors import NousError
from nous.system.process import spawn
from nous.system.python import own_program
from nous.system.supervise import supervise
from nous.system.threads import run_in_thread

CHECK_TIMEOUT_MS: Final = 10_000
CHECK_MEMORY_BYTES: Final = 1024 * 1024 * 1024

_PATTERNS: Final = frozenset({"pattern", "patternProperties"})


async def check_answer(schema: dict[str, Any], text: str, *, timeout_ms: int = CHECK_TIMEOUT_MS) -> str | None:
    """Return what keeps ``text`` from fitting ``schema``: see :func:`nous.runtime.output_schema.find_fault`."""
    if has_patterns(schema):
        return await _check_apart(schema, text, timeout_ms)
    from nous.runtime.output_schema import find_fault

    return await run_in_thread(find_fault, schema, text)


def has_patterns(schema: object) -> bool:
    """Whether a regular expression may stand anywhere in a schema; a property of such a name counts too."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if _PATTERNS & part.keys():
                return True
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return False


async def _check_apart(schema: dict[str, Any], text: str, timeout_ms: int) -> str | None:
    answer = bytearray()

    async def receive(data: bytes) -> None:
        answer.extend(data)

    child = spawn(
        own_program("nous.runtime.output_check"),
        cwd=Path("/"),
        env={"PATH": os.environ.get("PATH", os.defpath)},
        stdin="pipe",
        stderr="null",
    )
    stdin = child.stdin
    assert stdin is not None

    async def feed() -> None:
        with suppress(BrokenPipeError):
            await stdin.send(msgspec.json.encode([schema, text]))
        stdin.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed)
        ending = await supervise(child, receive, timeout_ms=timeout_ms, memory_limit_bytes=CHECK_MEMORY_BYTES)
        tasks.cancel_scope.cancel()
    if ending.stopped is not None:
        bound = f"{timeout_ms} ms" if ending.stopped == "timeout" else f"{CHECK_MEMORY_BYTES} bytes of memory"
        return f"$: the check took more than {bound}: a pattern of the schema?"
    if ending.returncode:
        raise NousError("internal_error", "the process that checks answers died")
    return msgspec.json.decode(answer, type=str | None)


def main() -> None:
    """Read a schema and an answer, write what is wrong with it."""
    from nous.runtime.output_schema import find_fault

    schema, text = msgspec.json.decode(sys.stdin.buffer.read())
    sys.stdout.buffer.write(msgspec.json.encode(find_fault(schema, text)))
