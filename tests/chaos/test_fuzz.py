"""Garbage into a real daemon: one answer for each line that has one, no exit, no growth.

FUZZ_LINES says how many lines (20,000 in ``make test``, 1,000,000 in ``make test-chaos``), FUZZ_SEED which.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from nous.client.process import serve_command
from nous.protocol.codec import DEFAULT_MAX_LINE_BYTES, CommandDecoder
from tests.support.home import ROOT, SCALE, Home, Setup

LINES: Final = int(os.environ.get("FUZZ_LINES", "20000"))
SEED: Final = int(os.environ.get("FUZZ_SEED", "1"))
SECONDS: Final = 60 + LINES / 500
GROWTH_BYTES: Final = 24 * 1024 * 1024
"""What a daemon may grow by between a fifth of the lines and all: its caches are bounded, and full by then."""

LEFT_OUT: Final = (b'"shutdown"', b'"prompt"', b'"compact_session"', b'"new_session"', b'"branch_session"')
"""Commands that end the daemon, or that fill the disk when they come by the hundred thousand."""

SPICES: Final = [
    *(bytes([byte]) for byte in b'{}[]":,\\ \t\r\x00\xff'),
    *(b"\\u0000", b"\\ud800", b"\xc3\x28", b"\xe2\x80\xa8"),
    *(b"null", b"true", b"-1", b"1e999", b"99999999999999999999", b"NaN"),
    *(b'"id":"', b'"v":"2"', b'"payload":{', b'"type":"ping"', b"[" * 200, b'{"a":' * 200),
]


def seeds() -> list[bytes]:
    lines = (ROOT / "protocol" / "v1" / "examples" / "commands.ndjson").read_bytes().split(b"\n")
    return [line for line in lines if line and not any(name in line for name in LEFT_OUT)]


def mutate(line: bytes, dice: random.Random) -> bytes:
    """Return a line with one to four accidents, and no line end in it."""
    data = bytearray(line)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(6):
            case 0:
                data[at:at] = dice.choice(SPICES)
            case 1:
                del data[at : at + dice.randint(1, 8)]
            case 2:
                data[at : at + 1] = bytes([dice.randrange(256)])
            case 3:
                data[at:at] = data[max(0, at - dice.randint(1, 20)) : at]
            case 4:
                del data[at:]
            case _:
                other = dice.choice(SPICES)
                data[at : at + len(other)] = other
    return bytes(data.replace(b"\n", b""))


def lines(count: int, seed: int) -> Iterator[bytes]:
    dice, originals = random.Random(seed), seeds()
    for number in range(count):
        line = dice.choice(originals)
        # One in fifty goes through as it was: the others must not have put the daemon out of step.
        yield line.replace(b'"id":"', b'"id":"%d-' % number, 1) if not number % 50 else mutate(line, dice)


class _Answer(msgspec.Struct):
    ok: bool | UnsetType = UNSET
    id: str = ""


class Reader(threading.Thread):
    """Counts the answers of a daemon; ``enough`` is set once there are so many, or its output has ended."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.answers = 0
        self.wanted: int | None = None
        self.enough = threading.Event()

    def run(self) -> None:
        decode = msgspec.json.Decoder(_Answer).decode
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if decode(line).ok is not UNSET:
                self.answers += 1
            if self.wanted is not None and self.answers >= self.wanted:
                self.enough.set()
        self.enough.set()


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_garbage_is_answered_and_forgotten(tmp_path: Path) -> None:
    home = Home(tmp_path)
    setup = Setup(config={"trace": {"fsync": "off"}})
    argv, environ = serve_command(home.arguments(setup)), home.environ(setup)
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=null, env=environ) as process:
        try:
            check(process)
        finally:
            process.kill()


def check(process: subprocess.Popen[bytes]) -> None:
    reader = Reader(process)
    reader.start()
    expected, early = send_all(process)
    reader.wanted = expected
    assert process.stdin is not None
    # One more, whose answer comes behind all the others.
    process.stdin.write(b'{"id":"last","type":"ping"}\n')
    process.stdin.flush()
    assert reader.enough.wait(SECONDS * SCALE), (reader.answers, expected)
    assert process.poll() is None
    assert resident_bytes(process.pid) - early < GROWTH_BYTES
    process.stdin.close()
    assert process.wait(30 * SCALE) == 0
    reader.join(10)
    assert reader.answers == expected


def send_all(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Send every line; return how many answers there will be, the last ping's included, and the memory early on."""
    oracle = CommandDecoder(DEFAULT_MAX_LINE_BYTES)
    expected, early = 1, 0
    batch = bytearray()
    assert process.stdin is not None
    for number, line in enumerate(lines(LINES, SEED), 1):
        batch += line + b"\n"
        if len(batch) > 60_000 or number == LINES:
            expected += sum(1 for _ in oracle.feed(bytes(batch)))
            process.stdin.write(batch)
            process.stdin.flush()
            batch.clear()
        if number == LINES // 5:
            early = resident_bytes(process.pid)
    return expected, early
