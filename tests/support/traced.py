"""State directories with traces in them, as a daemon would leave them, made without one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from nous.engine.effects import CallModel, Effect
from nous.engine.inputs import Input, ModelDone, ModelFailed, ModelProduced, Stamp
from nous.engine.machine import RunMachine
from nous.engine.spec import ENGINE_VERSION, RunSpec
from nous.protocol.messages import Message
from nous.replay.recording import Context, Header, context_digest
from nous.runtime.recorder import Recorder
from nous.store.sessions import SessionStore
from nous.store.trace_file import TraceWriter
from tests.support.engine import Bench, make_spec

CREATED_AT: Final = "2026-01-02T03:00:00.000Z"
EPOCH: Final = "epoch0"


class TracedState:
    """A state directory: sessions and traces, no daemon alive."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.traces = root / "traces"
        self.sessions = root / "sessions"
        for directory in (self.traces, self.sessions, root / "daemons"):
            directory.mkdir(parents=True, exist_ok=True)

    def spec(self, messages: Sequence[Message] = (), **changes: Any) -> RunSpec:
        """Return a spec on a session that holds ``messages``, which is written."""
        if messages:
            session = SessionStore(self.sessions).create("session-1", CREATED_AT)
            for message in messages:
                assert session.try_append(message)
            changes = {"leaf_id": messages[-1].id, "context_digest": context_digest(tuple(messages)), **changes}
        return make_spec(**changes)

    def record(self, bench: Bench, *, context: int = 0, compaction_id: str = "", end: str | None = "") -> Path:
        """Write the trace of what a bench has played on so many messages; ``end`` is its status, None leaves it cut."""
        machine = RunMachine(bench.machine.spec)
        writer = TraceWriter.create(self.traces, machine.spec.run_id)
        recorder = Recorder(writer)
        recorder.header(header_fields(make_header(machine.spec, entries=context, compaction_id=compaction_id)))
        call = 0
        for stamp, item in bench.inputs:
            # A shell cancels a call before it goes on: it never brings items of one that is over.
            is_late = isinstance(item, ModelProduced) and item.call != call
            if machine.ended or is_late:
                continue
            for effect in step(machine, recorder, stamp, item):
                call = effect.call if isinstance(effect, CallModel) else call
            if isinstance(item, ModelDone | ModelFailed):
                call = 0 if item.call == call else call
        if end is not None:
            recorder.finish(end or str(machine.status), machine.run.stamp.ts)
        recorder.release()
        return self.traces / f"{machine.spec.run_id}.ndjson"


def step(machine: RunMachine, recorder: Recorder, stamp: Stamp, item: Input) -> list[Effect]:
    """Do what a run's driver does with an input; return the effects."""
    elided = isinstance(item, ModelProduced) and machine.elides(item.items)
    machine.receive(stamp, item)
    effects = machine.take_effects()
    recorder.step(stamp, None if elided else item, machine.take_events(), effects)
    return effects


def make_header(spec: RunSpec, *, entries: int = 0, compaction_id: str = "") -> Header:
    seams = ("commands", "model", "tools", "policy", "store", "timers", "extensions")
    return Header(
        trace_version=1,
        v="1",
        run_id=spec.run_id,
        session_id=spec.session_id,
        leaf_id=spec.leaf_id,
        epoch=EPOCH,
        created_at=CREATED_AT,
        server_version="0.1.0",
        engine_version=ENGINE_VERSION,
        schema_digest="0" * 64,
        config_digest="0" * 64,
        provider={"name": spec.provider, "model": spec.model},
        active_tools=spec.active_tools,
        limits={},
        capabilities=(),
        spec=spec,
        context=Context(entries=entries, digest=spec.context_digest, compaction_id=compaction_id),
        capture={**dict.fromkeys(seams, "recorded"), "context": "referenced" if entries else "recorded"},
        redaction="none",
    )


def header_fields(header: Header) -> dict[str, object]:
    fields: dict[str, object] = json.loads(msgspec.json.encode(header))
    return {name: value for name, value in fields.items() if name != "type"}
