"""What others would print on stderr comes out as our records, without its content."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PRELUDE = """
import asyncio, logging, sys, threading, warnings
from nous.telemetry.foreign import capture_foreign_records
capture_foreign_records()
"""


def records_of(code: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-W", "default", "-c", PRELUDE + code]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert b"said" not in done.stderr
    return [json.loads(line) for line in done.stderr.split(b"\n")[:-1]]


FAIL = "def fail(*_):\n    raise ValueError('what the user said')\n"
IN_CALLBACK = """
async def main():
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
asyncio.run(main())
"""
IN_FINALIZER = "class Bad:\n    __del__ = fail\nBad()"
IN_THREAD = "thread = threading.Thread(target=fail)\nthread.start()\nthread.join()"


@pytest.mark.parametrize(
    ("code", "level", "event", "logger"),
    [
        ("logging.getLogger('lib').warning('slow: %s', 'what the user said')", "warning", "foreign_record", "lib"),
        ("logging.getLogger('lib').critical('bad')", "error", "foreign_record", "lib"),
        ("warnings.warn('old', DeprecationWarning)", "warning", "foreign_record", "py.warnings"),
        (FAIL + IN_CALLBACK, "error", "foreign_record", "asyncio"),
        (FAIL + IN_FINALIZER, "error", "unraisable_error", None),
        (FAIL + IN_THREAD, "error", "thread_failed", None),
    ],
)
def test_captured(code: str, level: str, event: str, logger: str | None) -> None:
    (record,) = records_of(code)
    assert (record["level"], record["room"], record["event"]) == (level, "foreign", event)
    assert record.get("logger") == logger
    assert ("error" in record) == ("fail" in code)
    if "error" in record:
        assert record["error"]["type"] == "ValueError"
        assert record["error"]["where"][-1].endswith(" fail")


def test_only_the_first_line_of_a_text() -> None:
    (record,) = records_of("logging.getLogger('lib').error('first\\nwhat the user said')")
    assert record["text"] == "first"


def test_what_is_not_important_is_left_alone() -> None:
    assert records_of("logging.getLogger('httpx').info('GET https://h/')\nlogging.getLogger('x').debug('d')") == []
