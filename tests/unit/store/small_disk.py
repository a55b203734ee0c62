"""A process that may write files of 4 KiB and no more.  Run by the tests of the store.

Appends to a session and to a trace until each refuses, and prints the codes and causes of the refusals.

usage: small_disk.py DIRECTORY
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from nous.errors import NousError
from nous.protocol.messages import Message
from nous.store.sessions import SessionStore
from nous.store.trace_file import TraceWriter

LIMIT = 4096


def first_refusal(append: Callable[[int], object]) -> str:
    for number in count():
        try:
            append(number)
        except NousError as error:
            return f"{error.code}: {error.cause}"
    raise AssertionError


directory = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
session = SessionStore(directory).create("s1", "now")
trace = TraceWriter.create(directory, "run1")
print(first_refusal(lambda n: session.try_append(Message(id=f"m{n}", role="user", text="x", created_at="now"))))
print(first_refusal(lambda n: trace.append(b"%d: a line\n" % n)))
print(len(session.messages), trace.offset)
sys.stdout.flush()
os._exit(0)
