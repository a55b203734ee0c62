"""Claiming descriptors 0 and 1, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from tests.support.home import ROOT, SCALE

CLAIM = """
import os, sys
from nous.transport.wire import claim_stdio
wire = claim_stdio()
os.write(wire.write_fd, b"wire " + os.read(wire.read_fd, 100))
print("stray", flush=True)
os.system("echo child; cat")
os.write(wire.write_fd, b" in=%d" % len(sys.stdin.read()))
os.write(wire.write_fd, b" inherited=%d%d" % (os.get_inheritable(wire.read_fd), os.get_inheritable(wire.write_fd)))
os.write(wire.write_fd, b" private=%d" % (min(wire) >= 10))
"""


def claim(prefix: str = "", suffix: str = "") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", f'{prefix}"$0" -c "$1" {suffix}', sys.executable, CLAIM],
        input=b"hello",
        capture_output=True,
        cwd=ROOT,
        timeout=20 * SCALE,
        check=True,
    )


def test_only_the_wire_reaches_stdout() -> None:
    done = claim()
    assert done.stdout == b"wire hello in=0 inherited=00 private=1"
    assert sorted(done.stderr.split()) == [b"child", b"stray"]


def test_there_may_be_no_stderr() -> None:
    assert claim(suffix="2>&-").stdout == b"wire hello in=0 inherited=00 private=1"
