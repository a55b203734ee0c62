"""What the store's tests share: messages, an independent look at a session's chain, and traces to write."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import nous
from nous.errors import NousError
from nous.protocol.entries import Compaction
from nous.protocol.events import StatusEvent, ThinkingUpdate, ToolArgumentsUpdate, event_line, feature_line
from nous.protocol.messages import Message
from nous.store.session import Session

NOW = "2026-11-21T10:00:00.000Z"
LATER = "2026-11-21T10:00:07.000Z"
ROOT = Path(nous.__file__).parent.parent


def message(message_id: str, parent_id: str = "", text: str = "") -> Message:
    return Message(id=message_id, parent_id=parent_id, role="user", text=text or message_id, created_at=NOW)


def compaction(entry_id: str, parent_id: str, first_kept: str = "", summary: str = "") -> Compaction:
    return Compaction(
        id=entry_id,
        parent_id=parent_id,
        summary=summary or f"summary {entry_id}",
        first_kept_entry_id=first_kept,
        tokens_before=100,
        trigger="manual",
        by="deterministic",
        created_at=NOW,
    )


def append_row(session: Session, ids: Iterable[str]) -> None:
    """Append messages one behind the other, at the session's leaf."""
    for message_id in ids:
        assert session.try_append(message(message_id, session.leaf_id))


def path_ids(session: Session, leaf_id: str | None = None) -> list[str]:
    return [known.message.id for known in session.path(leaf_id)]


def verify_chain(path: Path, *, may_be_torn: bool = False) -> list[dict[str, Any]]:
    """Check a session's file as its format is written down, with nothing of the store; return its lines decoded."""
    data = path.read_bytes()
    assert may_be_torn or data.endswith(b"\n")
    decoded = []
    previous = None
    for line in data.split(b"\n")[:-1]:
        entry = json.loads(line)
        assert list(entry)[-3:] == ["n", "prev", "digest"]
        value = b'"%b"}' % entry["digest"].encode()
        assert line.endswith(value)
        assert hashlib.sha256(line[: 1 - len(value)]).hexdigest().startswith(entry["digest"])
        if previous is not None:
            assert (entry["n"], entry["prev"]) == (previous["n"] + 1, previous["digest"])
        decoded.append(entry)
        previous = entry
    return decoded


class Tolerated:
    """Lets a NousError of one code pass; ``happened`` tells whether there was one."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.happened = False

    def __enter__(self) -> Tolerated:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        self.happened = isinstance(error, NousError)
        return isinstance(error, NousError) and error.code == self.code


def spawn(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start one of the scripts beside this file as a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name(script)), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def header_line(run_id: str, epoch: str = "e1") -> bytes:
    return (
        b'{"type":"trace.header","trace_version":1,"v":"1","run_id":"%b","session_id":"s1","leaf_id":"","epoch":"%b",'
        b'"created_at":"%b","engine_version":1}\n'
    ) % (run_id.encode(), epoch.encode(), NOW.encode())


def input_line(n: int, after_seq: int, ts: str = NOW, data: str = "{}") -> bytes:
    return b'{"type":"trace.input","n":%d,"after_seq":%d,"ts":"%b","mono_ns":1,"kind":"model","data":%b}\n' % (
        n,
        after_seq,
        ts.encode(),
        data.encode(),
    )


def effect_line(n: int) -> bytes:
    return b'{"type":"trace.effect","n":%d,"kind":"run_tool","digest":"00"}\n' % n


def event(seq: int, text: str = "x") -> bytes:
    return event_line(b"r1", seq, NOW.encode(), StatusEvent(message=text, run_id="r1"))


def thinking(after_seq: int, k: int) -> bytes:
    return feature_line(
        b"r1", after_seq, k, NOW.encode(), ThinkingUpdate(run_id="r1", turn_id="1", message_id="m", delta=f"hm {k}")
    )


def arguments(after_seq: int, k: int) -> bytes:
    payload = ToolArgumentsUpdate(run_id="r1", turn_id="1", message_id="m", tool_call_id="c", delta="{}")
    return feature_line(b"r1", after_seq, k, NOW.encode(), payload)


SMALL: Final = [
    header_line("r1"),
    input_line(1, 0),
    event(1),
    effect_line(1),
    event(2),
    thinking(2, 1),
    arguments(2, 2),
    input_line(2, 2, LATER),
    event(3, "last \u2028 \x00"),
]
"""A trace with something of everything: events 1 to 3 at 2, 4 and 8, feature events at 5 and 6."""


def unsealed(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a closed trace into its end, decoded, and the bytes before; check the seal as the format says."""
    last = data[data.rfind(b"\n", 0, -1) + 1 :]
    end: dict[str, Any] = json.loads(last)
    value = end["sha256"]
    assert list(end)[-1] == "sha256"
    assert data.endswith(f'"{value}"}}\n'.encode())
    covered = data[: -len(value) - 3]
    assert hashlib.sha256(covered).hexdigest() == value
    return end, data[: -len(last)]
