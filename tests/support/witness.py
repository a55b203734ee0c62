"""A client that writes down what a daemon has acknowledged, so that it can be looked for after the daemon's death."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.support.daemon import NOUS
from tests.support.home import SCALE, TEST_SECONDS, Home, Setup
from tests.unit.store.helpers import verify_chain

REFUSED: Final = ("command_rejected",)
"""What a daemon may answer without anything being wrong: nothing to compact, for instance."""

_encode: Final = msgspec.json.Encoder().encode


def acknowledged_entry(kind: str, payload: Mapping[str, Any]) -> str | None:
    """Return the id of the session's entry that an event acknowledges, if it is one that does."""
    if kind == "message_end" and payload.get("stop_reason") not in ("error", "aborted"):
        return str(payload["message_id"])
    if kind == "tool_execution_end" and payload.get("message_id"):
        return str(payload["message_id"])
    return None


class Witness:
    """What was acknowledged, over the lives of any number of daemons on one state directory.

    ``entries`` are the ids of messages that a ``message_end`` or ``tool_execution_end`` announced, by session;
    ``summaries`` those that a ``compaction`` answered with; ``sessions`` those that an answer named.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.sessions: dict[str, str] = {}
        self.entries: dict[str, list[str]] = {}
        self.texts: dict[str, str] = {}
        self.summaries: dict[str, set[str]] = {}
        self.session_of_run: dict[str, str] = {}

    def take(self, line: dict[str, Any]) -> None:
        """Note what one line of the daemon acknowledges; an AssertionError for what must not happen."""
        payload = line["payload"]
        if "ok" in line:
            assert line["ok"] or line["error"]["code"] in REFUSED, line
            self._take_answer(line["type"], payload)
        elif line["type"] == "agent_start":
            self.session_of_run[payload["run_id"]] = payload["session_id"]
        elif (message_id := acknowledged_entry(line["type"], payload)) is not None:
            self._take_entry(message_id, payload)
        else:
            assert line["type"] not in ("error", "warning"), line

    def _take_answer(self, kind: str, payload: dict[str, Any]) -> None:
        if kind == "session":
            self.sessions[payload["session_id"]] = payload.get("parent_id", "")
        elif kind == "compaction":
            self.summaries.setdefault(payload["session_id"], set()).add(payload["summary"])

    def _take_entry(self, message_id: str, payload: dict[str, Any]) -> None:
        session_id = self.session_of_run[payload["run_id"]]
        self.sessions.setdefault(session_id, "")
        self.entries.setdefault(session_id, []).append(message_id)
        text = payload.get("text", payload.get("result"))
        if text is not None:
            self.texts[message_id] = text

    def check_disk(self) -> None:
        """Check that everything acknowledged is on disk, in its order, once, and that each chain holds."""
        for session_id, parent_id in self.sessions.items():
            path = self.home.state / "sessions" / f"{session_id}.ndjson"
            header, *entries = verify_chain(path, may_be_torn=True)
            assert header.get("parent_id", "") == parent_id or not parent_id
            ids = [entry["id"] for entry in entries]
            assert [n for n, times in Counter(ids).items() if times > 1] == [], "an entry is there twice"
            acknowledged = set(self.entries.get(session_id, ()))
            assert [n for n in ids if n in acknowledged] == self.entries.get(session_id, []), session_id
            for entry in entries:
                assert entry.get("text") == self.texts.get(entry["id"], entry.get("text"))
            found = {entry["summary"] for entry in entries if entry["type"] == "compaction"}
            assert self.summaries.get(session_id, set()) <= found
            prompts = Counter(entry["text"] for entry in entries if entry.get("role") == "user")
            assert [text for text, times in prompts.items() if times > 1] == [], "a prompt is there twice"


class Victim:
    """A daemon that is going to be killed, and the commands it gets meanwhile."""

    def __init__(self, process: subprocess.Popen[bytes], witness: Witness, dice: random.Random, tag: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._in = process.stdin
        self._out = process.stdout.fileno()
        self._witness = witness
        self._dice = dice
        self._tag = tag
        self._held = b""
        self._sent = 0
        self.lines = 0

    def send(self, kind: str, **payload: object) -> None:
        self._sent += 1
        command = {"v": "1", "id": f"{self._tag}-{self._sent}", "type": kind, "payload": payload}
        with suppress(BrokenPipeError):
            self._in.write(_encode(command) + b"\n")
            self._in.flush()

    def prompt(self, session_id: str | None = None, leaf_id: str | None = None) -> None:
        given = {"session_id": session_id, "leaf_id": leaf_id}
        text = f"{self._tag} prompt {self._sent}"
        self.send("prompt", text=text, wait=False, **{name: value for name, value in given.items() if value})

    def receive(self, seconds: float) -> list[dict[str, Any]]:
        """Return the lines that come within so many seconds, as soon as there are some; all are witnessed."""
        ready, _, _ = select.select([self._out], [], [], seconds)
        return self._lines(os.read(self._out, 1 << 20)) if ready else []

    def rest(self) -> None:
        """Witness what a dead daemon had still written."""
        while data := os.read(self._out, 1 << 20):
            self._lines(data)

    def _lines(self, data: bytes) -> list[dict[str, Any]]:
        assert data or self.process.poll() is not None, "the daemon closed its output"
        *whole, self._held = (self._held + data).split(b"\n")
        lines = [json.loads(line) for line in whole]
        for line in lines:
            self._witness.take(line)
        self.lines += len(lines)
        return lines

    def wait_ready(self) -> None:
        """Wait for the first line."""
        deadline = time.monotonic() + TEST_SECONDS * SCALE
        while not self.lines:
            assert time.monotonic() < deadline, "the daemon did not get ready"
            self.receive(1.0)

    def live(self, seconds: float, most_lines: int) -> None:
        """Give commands, one after the other in each session, until the time is up or enough lines have come."""
        until = time.monotonic() + seconds
        known = list(self._witness.sessions)
        for _ in range(self._dice.randint(1, 3)):
            self.prompt(self._dice.choice(known) if known and self._dice.random() < 0.9 else None)
        limit = self.lines + most_lines
        while self.lines < limit and (left := until - time.monotonic()) > 0:
            for line in self.receive(left):
                if line["type"] == "agent_end" or ("ok" in line and line["type"] != "accepted"):
                    self._next_command(line)

    def _next_command(self, line: dict[str, Any]) -> None:
        """Ask for something in the session that has just become free."""
        payload, witness = line["payload"], self._witness
        session_id = payload.get("session_id") or witness.session_of_run.get(payload.get("run_id", ""))
        if session_id is None:
            return
        message_ids = witness.entries.get(session_id, [])
        draw = self._dice.random()
        if draw < 0.15:
            self.send("compact_session", session_id=session_id, instruction=f"{self._tag} {self._sent}")
        elif draw < 0.25 and message_ids:
            self.send("set_leaf", session_id=session_id, leaf_id=self._dice.choice(message_ids))
        elif draw < 0.3:
            self.send("branch_session", session_id=session_id)
        elif draw < 0.35:
            self.send("new_session")
        else:
            self.prompt(session_id, self._dice.choice(message_ids) if message_ids and draw > 0.9 else None)


@contextmanager
def daemon_process(home: Home, setup: Setup, *program: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a daemon on pipes; whatever still lives at the end is killed.  What it logs goes to a file."""
    command = [*(program or (*NOUS, "serve")), *home.arguments(setup)]
    with (home.root / "stderr").open("ab") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=home.workdir,
            env=home.environ(setup),
            start_new_session=True,
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def leftovers(state: Path) -> list[str]:
    """Return the names of temp files anywhere below a state directory."""
    return sorted(str(path.relative_to(state)) for path in state.rglob("*") if path.name.endswith(".tmp"))
