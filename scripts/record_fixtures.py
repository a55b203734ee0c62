"""Record fixtures/runs anew: every shape a run can have, each by a real daemon behind the real client.

    python scripts/record_fixtures.py [NAME...]

Without names all of them.  What is recorded is exported as anybody would export a run for a bug report, so a fixture
holds no path of this machine and no secret.  Ids and times are those of the recording: a run recorded anew changes in
every line.  To follow a change of behaviour that is meant, ``nous replay --update fixtures/runs`` is the better way.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from nous.client import Client, Event
from nous.replay.export import export_trace

ROOT: Final = Path(__file__).resolve().parent.parent
RUNS: Final = ROOT / "fixtures" / "runs"

DOT: Final = "R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="
"""One pixel."""

NOTES: Final = "bread\nmilk\napples\n"

# -- the stage


class Gate:
    """A named pipe on which a shell command waits until it is opened."""

    def __init__(self, workdir: Path) -> None:
        os.mkfifo(workdir / "gate")
        # For reading too: so neither side waits for the other to open it.
        self._fd = os.open(workdir / "gate", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def open(self) -> None:
        os.write(self._fd, b"go\n")

    def close(self) -> None:
        os.close(self._fd)


@dataclass
class Take:
    """One recording under way."""

    client: Client
    gate: Gate
    run_id: str = ""

    async def prompt(self, text: str, **payload: Any) -> None:
        answer = await self.client.call("prompt", text=text, wait=False, **payload)
        self.run_id = answer["run_id"]

    async def until(self, kind: str, **fields: object) -> Event:
        """Let the run go on up to an event."""
        async for event in self.client.events(self.run_id):
            if event.type == kind and all(event.payload.get(name) == value for name, value in fields.items()):
                return event
        raise RuntimeError(f"the run ended before {kind} {fields or ''}")

    async def end(self) -> None:
        async for _ in self.client.events(self.run_id):
            pass


Play = Callable[[Take], Awaitable[None]]


@dataclass(frozen=True)
class Shape:
    """How to record one fixture: what the model says, what the client does, what the daemon is started with.

    ``guard`` is the body of an extension's ``tool_call`` hook, which sees ``call``; without it there is no extension.
    """

    script: Sequence[object]
    play: Play
    config: dict[str, Any] | None = None
    flags: tuple[str, ...] = ()
    guard: str | None = None


def plainly(text: str) -> Play:
    """Send a prompt, and wait for the end of its run."""

    async def play(take: Take) -> None:
        await take.prompt(text)
        await take.end()

    return play


def call(name: str, **arguments: object) -> dict[str, Any]:
    return {"tool_call": {"name": name, "arguments": arguments}}


WAIT: Final = call("bash", command="echo before; read line < gate; echo after")
READ: Final = call("read", path="notes.txt")
SUMMARY: Final = {"steps": [{"text": ["A list of ", "three things."]}], "match": {"purpose": "compaction"}}
HASTY: Final = {"retry": {"max_retries": 2, "first_delay_ms": 20}}
COMPACTING: Final = {"engine": {"compact_keep_tokens": 20}}
DONE: Final = [{"text": ["All ", "done."]}, {"usage": {"input_tokens": 90, "output_tokens": 2}}]

CLEAN: Final = call("bash", command="rm notes.txt")

GUARD: Final = """\
import time
from nous.extension import hook, run

@hook("tool_call")
def guard(call):
    {body}

run("guard", "1.0")
"""
GUARD_MANIFEST: Final = {
    "name": "guard",
    "command": ["{python}", "guard.py"],
    "hooks": ["tool_call"],
    "hook_timeout_ms": 1000,
}

# -- what clients do


async def steer_between_tools(take: Take) -> None:
    await take.prompt("Wait for me, then read the notes.")
    await take.until("tool_execution_update")
    await take.client.call("steer", text="Never mind the notes.", run_id=take.run_id)
    take.gate.open()
    await take.end()


async def follow_up_twice(take: Take) -> None:
    await take.prompt("Wait for me.")
    await take.until("tool_execution_update")
    for text in ("And then?", "And after that?"):
        await take.client.call("follow_up", text=text, run_id=take.run_id)
    take.gate.open()
    await take.end()


async def follow_up_all(take: Take) -> None:
    await take.client.call("set_follow_up_mode", mode="all")
    await follow_up_twice(take)


async def change_everything(take: Take) -> None:
    await take.prompt("Wait for me.")
    await take.until("tool_execution_update")
    await take.client.call("set_active_tools", tools=["read"])
    await take.client.call("set_steering_mode", mode="all")
    await take.client.call("set_follow_up_mode", mode="all")
    for text in ("One thing.", "Another thing."):
        await take.client.call("steer", text=text, run_id=take.run_id)
    await take.client.call("follow_up", text="A last thing.", run_id=take.run_id)
    take.gate.open()
    await take.end()


async def abort_while_it_talks(take: Take) -> None:
    await take.prompt("Tell me everything.")
    await take.until("message_update")
    await take.client.call("follow_up", text="Nobody will hear this.", run_id=take.run_id)
    await take.client.call("abort", run_id=take.run_id)
    await take.end()


async def abort_before_the_retry(take: Take) -> None:
    await take.prompt("Are you there?")
    await take.until("warning", code="provider_retry")
    await take.client.call("abort", run_id=take.run_id)
    await take.end()


async def abort_while_a_tool_runs(take: Take) -> None:
    await take.prompt("Wait for me.")
    await take.until("tool_execution_update")
    await take.client.call("abort", run_id=take.run_id)
    await take.end()


async def leave_while_a_tool_runs(take: Take) -> None:
    await take.prompt("Wait for me.")
    await take.until("tool_execution_update")
    take.client.end_input()
    await take.end()


async def talk_on(take: Take) -> None:
    for text in ("What is on the list?", "And how many things is that?"):
        await take.prompt(text)
        await take.end()


async def ask_for_fruit(take: Take) -> None:
    shape = {"type": "object", "properties": {"fruit": {"type": "array", "minItems": 1}}, "required": ["fruit"]}
    await take.prompt("What fruit do I need?", output_schema=shape)
    await take.end()


async def show_an_image(take: Take) -> None:
    await take.prompt("What do you see?", images=[{"mime_type": "image/gif", "data": DOT}])
    await take.end()


async def change_the_model(take: Take) -> None:
    await take.prompt("What is on the list?")
    await take.end()
    await take.client.call("set_model", model="mock-large", thinking="high")
    await take.prompt("And on the other one?")
    await take.end()


async def talk_on_elsewhere(take: Take) -> None:
    await take.prompt("First question.")
    first_end = await take.until("agent_end")
    await take.prompt("Second question.")
    await take.end()
    await take.prompt("Second question, put in another way.", leaf_id=first_end.payload["leaf_id"])
    await take.end()


async def compact(take: Take) -> None:
    await talk_on(take)
    pending = take.client.start("compact_session", {"instruction": "Keep the list."})
    take.run_id = ""
    async for event in take.client.events():
        if event.type == "agent_start":
            take.run_id = event.payload["run_id"]
        elif event.type == "agent_end" and event.payload["run_id"] == take.run_id:
            break
    await pending.answer()


async def compact_and_talk_on(take: Take) -> None:
    await compact(take)
    await take.prompt("What was it again?")
    await take.end()


PLANES: Final = [
    # Basic: accents, right to left, combining marks, line separators that end no line, the last characters.
    "Grüße, שלום, ",
    "e\u0301 n\u0303 ",
    "\u0085\u2028\u2029 ",
    "\ud7ff\ue000\ufdd0\ufffd\ufffe\uffff ",
    # A tab, a quote, control characters.
    '\t"\\/\x00\x1b\x7f ',
    *("".join(chr(plane << 16 | low) for low in (0x0, 0xF600, 0xFFFD, 0xFFFF)) for plane in range(1, 17)),
    " 👩\u200d👩\u200d👧\u200d👦 🇺🇳",
]

SHAPES: Final[dict[str, Shape]] = {
    "plain-text": Shape([[{"text": ["Good ", "morning", "!"]}]], plainly("Good morning")),
    "unicode": Shape([[{"thinking": {"text": PLANES}}, {"text": PLANES}]], plainly("".join(PLANES))),
    "thinking": Shape(
        [
            [
                {"thinking": {"text": ["Where would ", "one look?"], "signature": "c2lnbmVk"}},
                {"tool_call": {"name": "read", "arguments": {"path": "notes.txt"}, "fragments": 4}},
                {"usage": {"input_tokens": 70, "output_tokens": 21, "reasoning_tokens": 9}},
            ],
            DONE,
        ],
        plainly("What is in my notes?"),
    ),
    "two-tools": Shape(
        [[{"text": "Let me see."}, READ, call("bash", command="wc -l < notes.txt")], DONE],
        plainly("Read my notes and count them."),
    ),
    "failing-tools": Shape(
        [
            [
                call("read", path="absent.txt"),
                call("bash", command="echo on stderr >&2; exit 3"),
                call("read", lines="all"),
                {"tool_call": {"name": "read", "arguments": '{"path": '}},
                call("fly"),
            ],
            DONE,
        ],
        plainly("Try everything."),
    ),
    "blocked-tool": Shape(
        [[call("bash", command="true")], DONE], plainly("Run it."), config={"tools": {"policy": {"bash": "deny"}}}
    ),
    "hook-blocks": Shape([[CLEAN], DONE], plainly("Clean up."), guard="return {'block': 'the notes stay'}"),
    "hook-changes-arguments": Shape(
        [[CLEAN], DONE], plainly("Clean up."), guard="return {'arguments': {'command': 'wc -l < notes.txt'}}"
    ),
    "hook-times-out": Shape([[CLEAN], DONE], plainly("Clean up."), guard="time.sleep(1000)"),
    "tool-loop-limit": Shape([[READ], [READ], [READ]], plainly("Read on."), config={"engine": {"max_model_calls": 3}}),
    "steer-between-tools": Shape([[WAIT, READ], DONE], steer_between_tools),
    "follow-up-one-at-a-time": Shape([[WAIT], DONE, DONE, DONE], follow_up_twice),
    "follow-up-all": Shape([[WAIT], DONE, DONE], follow_up_all),
    "changed-modes": Shape([[WAIT, READ], [READ, call("ls")], DONE, DONE], change_everything),
    "abort-in-model": Shape([[{"text": ["Well, ", "let me begin"]}, {"hang": True}]], abort_while_it_talks),
    "abort-in-tool": Shape([[WAIT]], abort_while_a_tool_runs),
    "abort-grace-over": Shape(
        [[call("bash", command="trap '' TERM; echo before; while :; do read line < gate; done")]],
        abort_while_a_tool_runs,
        config={"daemon": {"abort_grace_ms": 50}},
    ),
    "abort-at-eof": Shape([[WAIT]], leave_while_a_tool_runs, flags=("--on-eof", "abort")),
    "error-before-stream": Shape([[{"error": {"status": 401, "cause": "the key has expired"}}]], plainly("Hello?")),
    "retried-call": Shape(
        [[{"error": {"status": 503}}], [{"error": {"status": 429, "retry_after_ms": 30}}], DONE],
        plainly("Are you there?"),
        config=HASTY,
    ),
    "retries-exhausted": Shape([[{"error": {"status": 503}}]] * 3, plainly("Are you there?"), config=HASTY),
    "abort-before-retry": Shape(
        [[{"error": {"status": 429, "retry_after_ms": 9_000}}]], abort_before_the_retry, config=HASTY
    ),
    "error-in-stream": Shape([[{"text": ["Half an ", "ans"]}, {"cut": True}]], plainly("Hello?")),
    "cut-by-length": Shape(
        [[{"text": "And so on and so"}, {"finish": "length"}, {"usage": {"input_tokens": 8, "output_tokens": 5}}]],
        plainly("Go on."),
    ),
    "earlier-context": Shape([[READ], DONE, [{"text": "Three."}]], talk_on),
    "earlier-branch": Shape([[{"text": "One."}], [{"text": "Two."}], [{"text": "Two, again."}]], talk_on_elsewhere),
    "compaction": Shape([[READ], DONE, [{"text": "Three."}], SUMMARY], compact, config=COMPACTING),
    "compacted-context": Shape(
        [[READ], DONE, [{"text": "Three."}], SUMMARY, [{"text": "Apples."}]],
        compact_and_talk_on,
        config=COMPACTING,
    ),
    "structured-output": Shape([[{"text": ['{"fruit": ["app', 'les"],\n "count": 1.0}']}]], ask_for_fruit),
    "structured-output-invalid": Shape([[{"text": ["```json\n", '{"fruit": []}\n```']}]], ask_for_fruit),
    "structured-output-tools": Shape(
        [[READ], [{"text": '{"fruit": ["apples"]}'}]],
        ask_for_fruit,
        config={"engine": {"structured_output_tools": True}},
    ),
    "image": Shape([[{"text": "One dot."}]], show_an_image),
    "refused-image": Shape(
        [[{"error": {"status": 400, "cause": "HTTP 400: Could not process image", "image_refused": True}}], DONE],
        show_an_image,
    ),
    "model-of-the-session": Shape(
        [
            [{"text": "One."}],
            [
                {"thinking": {"text": "First.", "signature": "c2lnMQ=="}},
                {"text": "Look:"},
                {"thinking": {"text": "Second.", "signature": "c2lnMg=="}},
                READ,
            ],
            DONE,
        ],
        change_the_model,
    ),
    "long-answer": Shape([[{"text_repeat": {"text": "x", "count": 20_000, "chunk": 64}}]], plainly("Go")),
}
"""Every shape by the name of its fixture; of several runs the last one is kept."""


def install_guard(home: Path, body: str) -> None:
    """Write the extension into the user's own place below ``home``, where it needs no trust."""
    directory = home / ".config" / "nous" / "extensions" / "guard"
    directory.mkdir(parents=True)
    (directory / "extension.yaml").write_bytes(msgspec.json.encode(GUARD_MANIFEST))
    (directory / "guard.py").write_text(GUARD.format(body=body), encoding="utf-8")


async def record(name: str, shape: Shape, root: Path) -> Path:
    """Record one shape with a daemon that lives below ``root``; return the fixture."""
    state, workdir = root / "state", root / "work"
    workdir.mkdir()
    (workdir / "notes.txt").write_text(NOTES, encoding="utf-8")
    (root / "script.ndjson").write_bytes(b"".join(msgspec.json.encode(call) + b"\n" for call in shape.script))
    (root / "config.yaml").write_bytes(msgspec.json.encode(shape.config or {}))
    if shape.guard is not None:
        install_guard(root, shape.guard)
    gate = Gate(workdir)
    arguments = [
        *("--provider", "mock", "--script", str(root / "script.ndjson"), "--config", str(root / "config.yaml")),
        *("--state-dir", str(state), "--workdir", str(workdir), "--bootstrap", *shape.flags),
    ]
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}
    try:
        async with Client.spawn(arguments=arguments, env=env, cwd=workdir) as client:
            await client.call("hello", features=["thinking", "tool_arguments"], prompt_wait=False)
            take = Take(client, gate)
            await shape.play(take)
    finally:
        gate.close()
    return export_trace(state, take.run_id, out=root / f"{name}.trace.ndjson")


def record_all(names: Sequence[str]) -> None:
    RUNS.mkdir(parents=True, exist_ok=True)
    for name in names:
        with tempfile.TemporaryDirectory(prefix="nous-fixture-") as root:
            made = anyio.run(record, name, SHAPES[name], Path(root)).read_bytes()
            if os.fsencode(root) in made:
                raise RuntimeError(f"{name}: a path of this machine would be published")
            (RUNS / f"{name}.trace.ndjson").write_bytes(made)
            print(f"{name}: {len(made)} bytes")


def main(arguments: Sequence[str]) -> int:
    unknown = [name for name in arguments if name not in SHAPES]
    if unknown:
        print(f"no such shape: {', '.join(unknown)}; there are: {', '.join(SHAPES)}", file=sys.stderr)
        return 6
    record_all(arguments or list(SHAPES))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
