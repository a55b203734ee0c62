"""The worker process that evaluates foreign schemas; :mod:`nous.schemas.checker` starts it and talks to it.

It ends with its stdin.  It bounds its own memory; its time is bounded by the daemon, which kills it.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from nous.errors import bound_text
from nous.schemas.evaluation import (
    UnusableSchemaError,
    check_schema,
    check_tool_schema,
    find_argument_fault,
    find_fault,
)
from nous.schemas.requests import RETIRE_BYTES, CheckReply, encode_reply, read_request
from nous.system.procfs import resident_bytes

_MAX_FAULT_BYTES: Final = 2048


def main() -> None:
    """Answer requests until stdin ends.  The argument is the address space it may use, in bytes."""
    with suppress(ValueError, OSError):  # a lower limit is in force already
        resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
    is_over = False
    while not is_over:
        try:
            request = read_request(sys.stdin.buffer)
            if request is None:
                return
            fault = evaluate(*request)
        except MemoryError:
            reply = CheckReply(fault=None, over_memory=True, retires=True)
        else:
            reply = CheckReply(fault=fault, retires=resident_bytes(os.getpid()) > RETIRE_BYTES)
        sys.stdout.buffer.write(encode_reply(reply))
        sys.stdout.buffer.flush()
        is_over = reply.retires


def evaluate(kind: str, *given: Any) -> str | None:
    """Return what is wrong with a schema or a value, in at most 2 KiB; None if nothing is.

    Raises:
        MemoryError: and nothing else.
    """
    try:
        fault = _KINDS[kind](*given)
    except UnusableSchemaError as error:
        fault = str(error)
    except MemoryError:
        raise
    except Exception as error:
        # Numbers, dialects and formats fail in the library in many ways; what cannot be evaluated does not pass.
        fault = f"$: it cannot be evaluated ({type(error).__name__})"
    return None if fault is None else bound_text(fault, _MAX_FAULT_BYTES)


def _check_tools(schemas: dict[str, dict[str, Any]]) -> None:
    for name, schema in schemas.items():
        try:
            check_tool_schema(schema)
        except UnusableSchemaError as error:
            raise UnusableSchemaError(f"the tool {name}: {error}") from None


_KINDS: Final[dict[str, Callable[..., str | None]]] = {
    "schema": check_schema,
    "tools": _check_tools,
    "answer": find_fault,
    "arguments": find_argument_fault,
}
