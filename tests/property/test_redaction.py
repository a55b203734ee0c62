"""Any run with secrets in it, wherever they stand and however they came in pieces: its export is without them, and is
the same run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.engine.answer import parse_arguments
from nous.engine.inputs import ModelProduced, ToolProgressed
from nous.ports.model import TextDelta, ThinkingDelta, ToolCallDelta
from nous.protocol.messages import Message, TextBlock, ThinkingBlock, ToolCallBlock, ToolResultBlock
from nous.replay.engine_mode import replay_in_engine
from nous.replay.export import Format, export_trace
from nous.replay.recording import Recorded, read_header, read_lines
from tests.support.engine import Bench, Json
from tests.support.engine_moves import Played, runs
from tests.support.traced import TracedState

HELD = 'hunter2-"quoted"\\secret'
KEY_BLOCK = """-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIBkg4LVWM9nuwNSk3yByxZpYRTBnVJk5oGKcPrNnLAmYoAoGCCqGSM49
AwEHoUQ=
-----END EC PRIVATE KEY-----"""
SECRETS = {
    "openai": "sk-proj-Ab3dE5fG7hI9jK1lM3nO5pQ7",
    "github": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "google": "AIzaSyA-1234567890abcdefghijklmnopqrstu",
    "slack": "xoxb-123456789012-abcdefABCDEF",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "key": KEY_BLOCK,
    "bearer": "tok3n.with-parts_and~more==",
    "held": HELD,
}
"""By their kind; what must not be found afterwards."""


def shown(kind: str) -> str:
    """Return a secret as it stands in a text."""
    return f"Bearer {SECRETS[kind]}" if kind == "bearer" else SECRETS[kind]


@contextmanager
def state() -> Iterator[TracedState]:
    with tempfile.TemporaryDirectory() as root:
        yield TracedState(Path(root))


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from strings(list(pair))
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def all_said(path: Path) -> str:
    """Return all that an export says: every string in it, what came in pieces joined, and what arguments mean."""
    out: list[str] = []
    joined: dict[object, str] = {}
    for line in path.read_bytes().split(b"\n")[:-1]:
        decoded: Json = json.loads(line)
        out += strings(decoded)
        payload = decoded.get("payload", {})
        if "delta" in payload:
            key: object = (decoded["type"], payload.get("message_id"), payload.get("tool_call_id"))
            joined[key] = joined.get(key, "") + payload["delta"]
    for recorded in read_lines(path) if path.name.endswith(".trace.ndjson") else ():
        if isinstance(recorded, Recorded) and isinstance(recorded.item, ModelProduced):
            for item in recorded.item.items:
                if isinstance(item, ToolCallDelta):
                    key = (recorded.item.call, item.index)
                    joined[key] = joined.get(key, "") + item.arguments
    out += joined.values()
    for text in joined.values():
        out += strings(parse_arguments(text) or {})
    return "\x00".join(out)


def check(home: TracedState, recorded: Path, kinds: Sequence[str], kind: Format = "fixture") -> Path:
    """Export a trace and hold the export to all that is promised."""
    path = export_trace(home.root, "run-1", kind, held_secrets=[HELD])
    said = all_said(path)
    assert [name for name in kinds if SECRETS[name] in said] == []
    assert path.stat().st_mode & 0o777 == 0o600
    before, after = recorded.read_bytes().split(b"\n"), path.read_bytes().split(b"\n")
    if kind == "fixture":
        report = replay_in_engine(path)
        assert (report.verdict, report.reason) == ("identical", None)
        assert [len(line) for line in before[1:]] == [len(line) for line in after[1:]]
    else:
        assert [len(line) for line in before if line.startswith(b'{"v"')] == [len(line) for line in after[:-1]]
    return path


def arguments_with(secret: str) -> dict[str, str]:
    """Return ways in which a model may write a secret into its arguments."""
    plain = json.dumps({"path": "a", "content": f"x\n{secret}\ny"})
    spelled = "".join(f"\\u{ord(c):04x}" for c in secret)
    return {"plain": plain, "spelled": f'{{"content":"{spelled}"}}', "key": json.dumps({secret: 1})}


# -- where the pieces are cut


def pieces_of(text: str, cuts: Sequence[int]) -> list[str]:
    bounds = [0, *cuts, len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_found_wherever_an_answer_is_cut(kind: str) -> None:
    text = f"Here it is: {shown(kind)} - keep it."
    for cuts in [*combinations(range(1, len(text)), 1), tuple(range(1, len(text)))]:
        with state() as home:
            bench = Bench(home.spec()).start()
            for piece in pieces_of(text, cuts):
                bench.produce(TextDelta(piece))
            path = check(home, home.record(bench.run_to_end()), [kind])
            assert b"Here" in path.read_bytes() or len(cuts) > 1


def test_pieces_of_an_answer_keep_their_sizes() -> None:
    with state() as home:
        bench = Bench(home.spec()).start()
        pieces = pieces_of(f"\U0001f600 {SECRETS['openai']} \u00e9", range(1, 36, 3))
        bench.produce(*[TextDelta(piece) for piece in pieces])
        path = check(home, home.record(bench.run_to_end()), ["openai"])
        lines = [line.item for line in read_lines(path) if isinstance(line, Recorded)]
        told = [i.text for item in lines if isinstance(item, ModelProduced) for i in item.items if type(i) is TextDelta]
        assert [len(piece.encode()) for piece in told[: len(pieces)]] == [len(p.encode()) for p in pieces]
        assert "".join(told).startswith("\U0001f600 [REDACTED")


# -- where secrets stand

kinds = st.sampled_from(sorted(SECRETS))
around = st.text(max_size=12).map(lambda text: f"{text} ")


@st.composite
def texts_with(draw: st.DrawFn) -> tuple[str, str]:
    """Give a text with a secret in it, and the secret's kind."""
    kind = draw(kinds)
    return f"{draw(around)}{shown(kind)}\n{draw(around)}", kind


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    places = draw(st.lists(st.integers(0, len(text)), max_size=5).map(sorted))
    return pieces_of(text, places)


@given(st.data(), st.sampled_from(["fixture", "events"]))
def test_a_run_with_secrets_everywhere_is_exported_without_them(data: st.DataObject, form: Format) -> None:
    found: list[str] = []

    def secret() -> str:
        text, kind = data.draw(texts_with())
        found.append(kind)
        return text

    with state() as home:
        context = [
            Message(id="e1", role="user", text=secret(), created_at="2026-01-01T00:00:00.000Z"),
            answer_with(secret(), data.draw(kinds), parent_id="e1"),
        ]
        bench = Bench(home.spec(context)).start(secret())
        bench.steer(secret()).follow_up(secret())
        for piece in data.draw(cut(secret())):
            bench.produce(ThinkingDelta(piece))
        for piece in data.draw(cut(secret())):
            bench.produce(TextDelta(piece))
        kind = data.draw(kinds)
        found.append(kind)
        arguments = data.draw(st.sampled_from(sorted(arguments_with(shown(kind)).values())))
        for piece in data.draw(cut(arguments)):
            bench.produce(ToolCallDelta(index=0, id="t0", name="read", arguments=piece))
        bench.answer(finish="tool_use").store()
        while not bench.machine.ended:
            go_on(bench, data, secret)
        trace = home.record(bench, context=2)
        assert any(SECRETS[kind] in all_said(trace) for kind in found)
        path = check(home, trace, found, form)
        if form == "fixture":
            header = read_header(path)
            assert header.redaction == "default"
            assert not any(SECRETS[kind] in line for kind in SECRETS for line in strings(msgspec.to_builtins(header)))


def go_on(bench: Bench, data: st.DataObject, secret: Any) -> None:
    """Answer what the run waits for, in words that hold secrets; now and then fail."""
    waiting = bench.waiting
    if waiting.question is not None:
        bench.allow(allow=data.draw(st.booleans()), reason=secret())
    elif waiting.tool is not None:
        for piece in data.draw(cut(secret())):
            bench.give(ToolProgressed(waiting.tool.tool_call_id, piece))
        bench.finish_tool(secret(), data.draw(st.sampled_from(["ok", "error"])))
    elif waiting.call is not None and data.draw(st.booleans()):
        bench.fail_model("provider_error", secret())
    else:
        bench.go_on()


def answer_with(text: str, kind: str, *, parent_id: str) -> Message:
    arguments = json.dumps({"content": shown(kind)})
    return Message(
        id="e2",
        parent_id=parent_id,
        role="assistant",
        text=text,
        created_at="2026-01-01T00:00:00.000Z",
        blocks=(
            ThinkingBlock(text=text, signature="signed"),
            TextBlock(text=text),
            ToolCallBlock(id="c1", name="write", arguments=arguments),
            ToolResultBlock(tool_call_id="c1", tool_name="write", text=text, is_error=False),
        ),
    )


# -- runs of every shape

# Words that the generated runs are full of, as if they were secrets: in texts, ids, names and arguments.
WORDS = ("xxxxxx", "result", "reason", "nothing", "signed", '"path"', '":"a"}', "\U0001f600\U0001f600\U0001f600")


@given(runs, st.lists(st.sampled_from((*WORDS, "provider")), unique=True), st.booleans())
def test_any_run_is_exported_as_the_same_run(run: Played, held: list[str], is_cut: bool) -> None:
    bench = run.bench if is_cut else run.bench.run_to_end()
    with state() as home:
        recorded = home.record(bench, end=None if is_cut else "")
        path = export_trace(home.root, "run-1", held_secrets=held)
        assert replay_in_engine(path).verdict == "identical"
        before, after = recorded.read_bytes().split(b"\n"), path.read_bytes().split(b"\n")
        middle = len(before) - (1 if is_cut else 2)
        assert [len(line) for line in before[1:middle]] == [len(line) for line in after[1:middle]]
        whole = export_trace(home.root, "run-1", redact=False).read_bytes().split(b"\n")
        assert whole[1:middle] == before[1:middle]
