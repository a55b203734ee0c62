"""Housekeeping that does not end keeps no process from ending."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import threading
import anyio
from nous.transport.server import Server

started = threading.Event()

def work():
    started.set()
    threading.Event().wait()

async def main():
    server = Server.__new__(Server)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server._keep_house, work)
        while not started.is_set():
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

anyio.run(main)
print("ended")
"""


def test_a_process_ends_while_its_housekeeping_hangs() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"ended\n"
