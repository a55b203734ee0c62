"""Logs as a process writes them: every test looks at the stderr of a real one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PRELUDE = """
import sys
from nous.telemetry.log import configure, flush, get_log, hide_value
log = get_log("runtime")
"""
DEADLINE_S = 60


def run(code: str, *, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", PRELUDE + code]
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=stderr, timeout=DEADLINE_S)


def records_of(code: str) -> list[dict[str, Any]]:
    done = run(code)
    assert done.returncode == 0, done.stderr
    return parse(done.stderr)


def parse(data: bytes) -> list[dict[str, Any]]:
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


# What a record is


def test_a_record() -> None:
    done = run("configure('info', correlation_id='c-1', epoch='e-1')\nlog.info('run_started', run_id='r-1', n=2)")
    (line,) = done.stderr.splitlines(keepends=True)
    assert re.fullmatch(
        rb'\{"ts":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","level":"info","room":"runtime","event":"run_started",'
        rb'"epoch":"e-1","correlation_id":"c-1","run_id":"r-1","n":2\}\n',
        line,
    )


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
        (None, ["warning", "error"]),
    ],
)
def test_levels(level: str | None, written: list[str]) -> None:
    configuring = "" if level is None else f"configure({level!r})\n"
    code = configuring + "\n".join(f"log.{name}('x')" for name in ("debug", "info", "warning", "error"))
    assert [record["level"] for record in records_of(code)] == written


def test_a_field_wins_over_the_context_but_not_over_what_every_record_has() -> None:
    (record,) = records_of(
        "configure('info', correlation_id='outer', epoch='e')\n"
        "log.info('x', correlation_id='inner', event='a', level='b', ts='c', room='d', self='e', record='f',\n"
        "         method_name='g')"
    )
    del record["ts"]
    assert record == {
        "level": "info", "room": "runtime", "event": "x", "epoch": "e", "correlation_id": "inner", "event_": "a",
        "level_": "b", "ts_": "c", "room_": "d", "self": "e", "record": "f", "method_name": "g",
    }  # fmt: skip


def test_records_keep_their_order_and_none_is_lost_at_exit() -> None:
    records = records_of("configure('info')\nfor n in range(200): log.info('x', n=n)")
    assert [record["n"] for record in records] == list(range(200))


def test_threads_share_one_stream() -> None:
    records = records_of(
        "import threading\nconfigure('info')\n"
        "threads = [threading.Thread(target=lambda: [log.info('x') for _ in range(20)]) for _ in range(8)]\n"
        "for thread in threads: thread.start()\nfor thread in threads: thread.join()"
    )
    assert len(records) == 160


def test_a_line_fits_a_pipe_in_one_piece() -> None:
    done = run("log.error('x', run_id='r-1', **{f'f{n}': chr(1) * 3000 for n in range(9)})")
    (record,) = parse(done.stderr)
    assert len(done.stderr) <= 4096
    assert (record["event"], record["run_id"], record["fields_omitted"]) == ("x", "r-1", 9)


def test_fields_that_cannot_be_read_cost_the_record_not_the_caller() -> None:
    records = records_of(
        "class Bad(dict):\n    def items(self): raise RuntimeError('content')\n"
        "log.error('lost', bad=Bad(a=1))\nlog.error('kept')"
    )
    assert [record["event"] for record in records] == ["kept", "log_dropped"]
    assert records[1]["count"] == 1


def test_hidden_values() -> None:
    done = run(
        "hide_value('sk-verysecret')\nhide_value('sk-verysecret-2')\nhide_value('abc')\n"
        "log.error('x', a='sk-verysecret-2 abc', b=['sk-verysecret'])\n"
    )
    (record,) = parse(done.stderr)
    assert (record["a"], record["b"]) == ("[redacted] abc", ["[redacted]"])
    assert b"verysecret" not in done.stderr


# What it costs


def test_a_process_that_logs_nothing_imports_nothing_and_starts_no_thread() -> None:
    done = run(
        "import threading\nconfigure('warning')\nlog.info('x')\nlog.debug('y')\nflush()\n"
        "print(threading.active_count(), *sys.modules)"
    )
    threads, *modules = done.stdout.decode("ascii").split()
    assert threads == "1"
    assert set(modules) & {"structlog", "logging", "asyncio", "yaml", "httpx2", "anyio", "traceback"} == set()


def test_structlog_renders() -> None:
    done = run("log.error('x')\nflush()\nprint('structlog' in sys.modules)")
    assert done.stdout == b"True\n"


# A stderr that is closed, full, gone or stalled


def test_stderr_closed_from_the_start(tmp_path: Path) -> None:
    """The next file opened gets stderr's number: a log must not end up in it."""
    path = tmp_path / "trace"
    code = f"file = open({str(path)!r}, 'wb')\nprint(file.fileno())\nlog.error('x')\nprint(flush())"
    command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, PRELUDE + code]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, timeout=DEADLINE_S)
    assert (done.returncode, done.stdout) == (0, b"2\nTrue\n")
    assert path.read_bytes() == b""


def test_stderr_closed_later() -> None:
    done = run("import os\nlog.error('x')\nflush()\nos.close(2)\nlog.error('y')\nprint(flush())")
    assert (done.returncode, done.stdout) == (0, b"True\n")
    assert [record["event"] for record in parse(done.stderr)] == ["x"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_stderr_full() -> None:
    """What could not be written is counted, and said once there is room again."""
    code = (
        "import os\nout = os.dup(2)\nfull = os.open('/dev/full', os.O_WRONLY)\nos.dup2(full, 2)\n"
        "for n in range(3): log.error('lost')\nflush()\nos.dup2(out, 2)\nlog.error('kept')"
    )
    done = run(code)
    assert done.returncode == 0
    assert [(record["event"], record.get("count")) for record in parse(done.stderr)] == [
        ("kept", None),
        ("log_dropped", 3),
    ]


def test_the_reader_of_stderr_is_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run("for n in range(1000): log.error('x')\nprint(flush())", stderr=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout) == (0, b"True\n")


@contextmanager
def stalled_pipe() -> Iterator[tuple[int, int]]:
    """A pipe that is full: writing to it blocks until somebody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b" " * 4095 + b"\n")
    except BlockingIOError:
        os.set_blocking(writer, True)
    try:
        yield reader, writer
    finally:
        os.close(reader)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_stalled_reader_stops_nobody_and_is_told_what_was_dropped(blocking: bool) -> None:
    """1000 records into a pipe nobody reads: the process goes on, and says so on stdout before anybody reads."""
    code = (
        "for n in range(1000): log.error('x', n=n)\n"
        "print('went on', flush(0), flush=True)\nsys.stdin.read(1)\nprint(flush(30_000))"
    )
    with stalled_pipe() as (reader, writer):
        os.set_blocking(writer, blocking)
        command = [sys.executable, "-c", PRELUDE + code]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writer) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            os.close(writer)
            assert child.stdout.readline() == b"went on False\n"
            child.stdin.write(b"!")
            child.stdin.flush()
            with open(reader, "rb", closefd=False) as stderr:
                written = [json.loads(line) for line in stderr.read().split(b"\n") if line.strip()]
            assert child.stdout.readline() == b"True\n"
            assert child.wait(DEADLINE_S) == 0
    numbers = [record["n"] for record in written if record["event"] == "x"]
    (dropped,) = (record["count"] for record in written if record["event"] == "log_dropped")
    assert numbers == list(range(len(numbers)))
    assert len(numbers) + dropped == 1000
    assert len(numbers) < 500


def test_a_process_ends_although_its_stderr_is_stalled() -> None:
    with stalled_pipe() as (_, writer):
        done = run("log.error('x')", stderr=writer)
        os.close(writer)
    assert done.returncode == 0
