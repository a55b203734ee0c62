"""The last record of a process: written by the calling thread, and dropped where stderr would block."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import IO, Any

from tests.support.home import ROOT, SCALE, TEST_SECONDS

PROGRAM = """
import os
from nous.telemetry.log import get_log
get_log("transport").last("end_forced", exit_code=143)
os._exit(7)
"""


def run(stderr: int | IO[Any]) -> subprocess.CompletedProcess[bytes]:
    limit = TEST_SECONDS * SCALE
    return subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, stderr=stderr, timeout=limit, check=False)


def test_it_is_written_before_the_call_returns() -> None:
    done = run(subprocess.PIPE)
    assert done.returncode == 7
    record = json.loads(done.stderr)
    assert (record["event"], record["room"], record["level"], record["exit_code"]) == (
        "end_forced",
        "transport",
        "error",
        143,
    )


def test_a_reader_that_has_stalled_delays_nothing() -> None:
    read_fd, write_fd = os.pipe()
    try:
        os.set_blocking(write_fd, False)
        while True:
            try:
                os.write(write_fd, b"x" * 4096)
            except BlockingIOError:
                break
        os.set_blocking(write_fd, True)
        assert run(write_fd).returncode == 7
    finally:
        os.close(read_fd)
        os.close(write_fd)
