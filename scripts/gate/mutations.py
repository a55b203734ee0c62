"""Deliberate breakages that the gate must notice: ``python -m scripts.gate.mutations [CHECK ...]``.

Each is one edit of a copy of the project; the check it names must then FAIL.  One PASS or FAIL line per breakage; exits
with 1 if the gate let one through.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from scripts.gate.checks import CHECK_SECONDS, ROOT

COPIED: Final = ("nous", "protocol", "scripts", "fixtures", "docs")


class Mutation(NamedTuple):
    """``before`` stands exactly once in ``file`` and becomes ``after``; then ``check`` fails."""

    check: str
    what: str
    file: str
    before: str
    after: str


MUTATIONS: Final = (
    Mutation("P.1", "a command is renamed", "nous/protocol/commands.py", 'kind = "list_tools"', 'kind = "tools"'),
    Mutation("P.1", "an event loses a field", "nous/protocol/events.py", "    discarded: ", "    thrown_away: "),
    Mutation("P.2", "the schema is stale", "protocol/v1/events.schema.json", '"agent_start"', '"agent_begin"'),
    Mutation(
        "A1.1",
        "an answer leaves out an event",
        "nous/runtime/results.py",
        "return Result(",
        "del events[1:2]\n    return Result(",
    ),
    Mutation(
        "A1.2",
        "a sync prompt runs another text",
        "nous/runtime/handlers.py",
        "call.command_id, payload.text, terms",
        'call.command_id, payload.text + ("" if payload.wait is False else " "), terms',
    ),
    Mutation(
        "A1.3",
        "a failure is only answered",
        "nous/engine/machine.py",
        '        self._close_open_parts("error")\n        run.emitter.emit(\n            ErrorEvent(',
        '        self._close_open_parts("error")\n        (lambda event: None)(\n            ErrorEvent(',
    ),
    Mutation("A2.1", "events count by two", "nous/engine/emitter.py", "        self.seq += 1", "        self.seq += 2"),
    Mutation(
        "A2.2",
        "a changed byte is not looked for",
        "nous/store/trace_file.py",
        "self._digest = sha256()",
        'self._digest = sha256(b"x")',
    ),
    Mutation(
        "A2.3", "an event is told twice", "nous/runtime/recorded.py", "next_after_seq=seq,", "next_after_seq=seq - 1,"
    ),
    Mutation(
        "B1.1",
        "the model is asked with all of the session",
        "nous/runtime/run.py",
        "    path = session.path(leaf_id)\n",
        "    path = session.path(session.leaf_id)\n",
    ),
    Mutation(
        "B1.2",
        "a message is linked to nothing",
        "nous/engine/run_state.py",
        "            parent_id=self.leaf_id,\n            role=role,",
        '            parent_id="",\n            role=role,',
    ),
    Mutation(
        "B1.3",
        "something is written before a leaf is refused",
        "nous/runtime/handlers.py",
        "    terms = await settle_prompt(",
        "    daemon.create_session()\n    terms = await settle_prompt(",
    ),
    Mutation("B2.1", "a tool has no deadline", "nous/tools/bash.py", "timeout_ms=timeout_ms,", "timeout_ms=600_000,"),
    Mutation(
        "B2.2",
        "an abort waits for a tool to want to end",
        "nous/system/process.py",
        "self._signal_until_gone(signal.SIGKILL, KILL_LIMIT_MS)",
        "self._signal_until_gone(signal.SIGTERM, 600_000)",
    ),
    Mutation(
        "B2.4",
        "a blocked tool call runs",
        "nous/engine/toolround.py",
        "        if answer.block is not None:\n            return self._refuse(",
        "        if answer.block is None and answer.handled:\n            return self._refuse(",
    ),
    Mutation(
        "C1",
        "the daemon calls home",
        "nous/cli/serve.py",
        "    options = parse(make_parser(), arguments)\n",
        "    options = parse(make_parser(), arguments)\n"
        "    __import__('socket').socket(type=2).connect(('192.0.2.1', 9))\n",
    ),
    Mutation(
        "C1.2",
        "the live smoke passes without a key",
        "scripts/gate/offline.py",
        "    if found is None:\n",
        "    if found is None:\n        return 'skipped'\n",
    ),
    Mutation(
        "compat.01",
        "a result is only wrapped",
        "nous/protocol/responses.py",
        '{"result": answer.result} | answer.result',
        '{"result": answer.result}',
    ),
    Mutation(
        "compat.02",
        "an ended run is shown to whoever comes",
        "nous/runtime/prompters.py",
        "asked = None if pid is None else self._asked.get(pid)",
        "asked = None if pid is None else next(iter(self._asked.values()), None)",
    ),
    Mutation(
        "compat.03",
        "the only run is not found",
        "nous/runtime/daemon.py",
        "return active[0] if len(active) == 1 else None",
        "return None",
    ),
    Mutation(
        "compat.04",
        "a second prompt goes to another session",
        "nous/runtime/daemon.py",
        "if upcoming.is_alone and self.runs:",
        "if upcoming.is_alone and len(self.runs) > 1:",
    ),
    Mutation(
        "compat.05",
        "output that was not streamed is not shown",
        "nous/runtime/run.py",
        "shows_tool_output=True",
        "shows_tool_output=False",
    ),
    Mutation(
        "compat.06",
        "session ids begin otherwise",
        "nous/system/ids.py",
        'return f"sess-{self._next()}"',
        'return f"ses-{self._next()}"',
    ),
    Mutation(
        "compat.07",
        "a message leaves out the reason",
        "nous/protocol/responses.py",
        "message=error.full_message",
        "message=error.message",
    ),
    Mutation(
        "compat.08",
        "answers overtake each other",
        "nous/runtime/mode.py",
        '"""Whether answers leave in the order of their commands."""\n        return self is Mode.LEGACY',
        '"""Whether answers leave in the order of their commands."""\n        return False',
    ),
    Mutation(
        "compat.09",
        "an unknown leaf has a newer code",
        "nous/store/session.py",
        'NousError("command_rejected", f"leaf_id',
        'NousError("invalid_payload", f"leaf_id',
    ),
    Mutation(
        "compat.10",
        "an empty id names something",
        "nous/protocol/commands.py",
        'if getattr(payload, name) == ""]',
        'if getattr(payload, name) == " "]',
    ),
    Mutation(
        "compat.11",
        "a dot is no part of a name",
        "nous/extensions/wire.py",
        'ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.',
        'ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_',
    ),
    Mutation(
        "compat.12",
        "a bound on texts is not kept",
        "nous/replay/export.py",
        "lines if max_text_bytes is None else",
        "lines if True else",
    ),
    Mutation(
        "compat.13",
        "a null payload is refused",
        "nous/protocol/codec.py",
        '    if raw == b"null":',
        '    if raw == b"nothing":',
    ),
    Mutation(
        "compat.14",
        "only the address that was given is tried",
        "nous/providers/api_base.py",
        "_VERSION.search(base) is not None",
        "True",
    ),
    Mutation(
        "compat.15",
        "the context is the history",
        "nous/runtime/handlers.py",
        'if payload.view == "context" else',
        'if payload.view == "none" else',
    ),
)


def mutate(copy: Path, mutation: Mutation) -> None:
    """Apply an edit to a copy of the project.  Raises LookupError if its place is not found, or not only once."""
    path = copy / mutation.file
    text = path.read_text(encoding="utf-8")
    found = text.count(mutation.before)
    if not found or (found > 1 and not mutation.file.endswith(".json")):
        raise LookupError(f"{mutation.file} holds {mutation.before!r} {found} times")
    path.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")


def notices(copy: Path, mutation: Mutation) -> str | None:
    """Run the check on a mutated copy; return the line with which it failed, or None if it did not."""
    environ = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-m", "scripts.gate", "--only", mutation.check]
    if mutation.check == "C1":
        # Any check that starts a daemon will do; the verdict over the sockets comes last.
        argv += ["--only", "A1.3"]
    done = subprocess.run(argv, cwd=copy, env=environ, capture_output=True, timeout=10 * CHECK_SECONDS, check=False)
    failed = [line for line in done.stdout.decode().split("\n") if line.startswith(f"FAIL {mutation.check}")]
    return failed[0] if failed and done.returncode == 1 else None


def tried(mutation: Mutation) -> bool:
    with tempfile.TemporaryDirectory(prefix="nous-mutation-") as place:
        copy = Path(place).resolve()
        for name in COPIED:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        try:
            mutate(copy, mutation)
        except LookupError as error:
            print(f"FAIL {mutation.check} {mutation.what}: {error}", flush=True)
            return False
        line = notices(copy, mutation)
    print(f"{'PASS' if line else 'FAIL'} {mutation.check} {mutation.what}: {line or 'not noticed'}"[:300], flush=True)
    return line is not None


def main(only: list[str]) -> int:
    results = [tried(mutation) for mutation in MUTATIONS if not only or mutation.check in only]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
