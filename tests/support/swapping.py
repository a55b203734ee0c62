"""A process that swaps a directory for a link, to be raced against."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SWAP: str = """
import os, shutil, sys
directory, outside = sys.argv[1:]
aside = directory + "-aside"
print("swapping", flush=True)
while True:
    os.rename(directory, aside)
    try:
        os.symlink(outside, directory)
        os.unlink(directory)
    except FileExistsError:
        pass  # a tool made a directory of this name
    while True:
        try:
            os.rename(aside, directory)
            break
        except OSError:
            shutil.rmtree(directory, ignore_errors=True)
"""


@contextlib.contextmanager
def swapping(directory: Path, outside: Path) -> Iterator[None]:
    """Swap ``directory`` for a link to ``outside`` and back in a process of its own, as fast as it goes."""
    command = [sys.executable, "-S", "-c", SWAP, str(directory), str(outside)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
            assert process.poll() is None
        finally:
            process.kill()
