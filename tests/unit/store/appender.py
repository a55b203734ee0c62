"""A process that appends to a session and says on stdout what it has appended.  Run by the tests of the store.

usage: appender.py DIRECTORY SESSION PREFIX COUNT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

from nous.protocol.messages import Message
from nous.store.locks import SWARM
from nous.store.sessions import SessionStore


async def append_all(directory: str, session_id: str, prefix: str, count: int) -> None:
    session = SessionStore(Path(directory), profile=SWARM).get(session_id)
    os.write(1, b"ready\n")
    os.read(0, 1)
    for number in range(count):
        message = Message(
            id=f"{prefix}{number}", parent_id=session.leaf_id, role="user", text="x" * 300, created_at="now"
        )
        await session.append(message)
        os.write(1, message.id.encode() + b"\n")


anyio.run(append_all, sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
