"""Puts one run together: its engine, its trace, its session, and what its effects are performed with."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from nous.engine.effects import CallModel, PlanCompaction
from nous.engine.inputs import CompactionPlanned, CompactionRefused, EntryStored
from nous.engine.machine import RunMachine
from nous.engine.spec import (
    EMPTY_CONTEXT,
    ENGINE_VERSION,
    INLINE_TEXT_BYTES,
    EngineLimits,
    RunSpec,
    chain_digest,
)
from nous.engine.summary import choose_cut, summarise
from nous.ports.extensions import RUN_HOOKS
from nous.ports.model import ModelRequest, Provider
from nous.ports.tool import Tool, ToolContext
from nous.protocol.digest import SCHEMA_DIGEST
from nous.protocol.entries import Compaction
from nous.protocol.events import AgentEnd
from nous.protocol.messages import Message
from nous.protocol.responses import PROTOCOL_VERSION
from nous.runtime.compaction import compaction_request
from nous.runtime.driver import SYNC_EVENTS, RunDriver
from nous.runtime.performer import Performer
from nous.runtime.publisher import BeginSync, Publisher
from nous.runtime.recorder import Recorder
from nous.runtime.run_hooks import RunHooks
from nous.runtime.system_prompt import build_system_prompt
from nous.runtime.terms import FAULT_INJECTION, STRUCTURED_OUTPUT_TOOLS, RunTerms
from nous.schemas.checker import CheckFailedError
from nous.store.lines import SLICE_BYTES
from nous.store.session_path import MESSAGES_PER_STEP, PathView
from nous.store.sessions import Session
from nous.store.trace_file import TraceWriter
from nous.system.steps import Steps, complete

if TYPE_CHECKING:
    from nous.runtime.daemon import Daemon

TRACE_VERSION: Final = 1

RECORDED_SEAMS: Final = ("commands", "model", "tools", "policy", "store", "timers", "extensions")
"""Where what is not deterministic enters a run; its trace holds all of it."""


class Resources:
    """What one run's effects are performed with."""

    def __init__(self, daemon: Daemon, session: Session, run_id: str, path: PathView, terms: RunTerms) -> None:
        self.provider: Provider = daemon.seams.provider(terms.provider)
        self.terms = terms
        self.session = session
        self.seams = daemon.seams
        self.entries = daemon.seams.entries(session)
        self.hooks = RunHooks(daemon.seams.extensions(daemon.extensions), session.id, run_id)
        self._daemon = daemon
        self._run_id = run_id
        # Which context the run is on; what others compact meanwhile is for the next run.
        self._compaction_id = path.compaction_id
        self._system: dict[tuple[str, ...], str] = {}

    def request(self, effect: CallModel) -> ModelRequest:
        """Return the request of a model call."""
        path = self._path(effect).shown(effect.images_left_out)
        if effect.purpose == "compaction":
            return compaction_request(self._run_id, self.session.id, effect, path)
        return ModelRequest(
            run_id=self._run_id,
            session_id=self.session.id,
            call=effect.call,
            system=self.system(effect.tools),
            messages=path,
            tools=self._daemon.toolbox.specs(effect.tools),
            output_schema=self.terms.output_schema,
        )

    def refused_images(self, effect: CallModel) -> tuple[str, ...]:
        """Return the messages whose images a refusal may mean."""
        return self._path(effect).suspect_images(effect.images_left_out)

    def _path(self, effect: CallModel | PlanCompaction) -> PathView:
        return self.session.path(effect.leaf_id, self._compaction_id)

    def plan_compaction(self, effect: PlanCompaction) -> CompactionPlanned | CompactionRefused:
        """Return what a compaction would keep and summarise, or that there is nothing to compact."""
        path = self._path(effect)
        cut = choose_cut(path, self._daemon.settings.engine.compact_keep_tokens)
        if not cut:
            return CompactionRefused(effect.entry_id)
        return CompactionPlanned(
            entry_id=effect.entry_id,
            first_kept_entry_id=path[cut].message.id if cut < len(path) else "",
            tokens_before=path.estimated_tokens,
            by="model" if self.provider.summarises else "deterministic",
            fallback=summarise([entry.message for entry in path[:cut]], effect.instruction),
        )

    def stored(self, entry: Message | Compaction) -> EntryStored:
        """Return what the engine is told of a stored entry."""
        if isinstance(entry, Message):
            return EntryStored(entry.id)
        self._compaction_id = entry.id
        path = self.session.path(entry.parent_id, entry.id)
        return EntryStored(entry.id, context_digest(path), path.estimated_tokens)

    def system(self, tools: tuple[str, ...]) -> str:
        """Return the system prompt for a set of tools; it is built once."""
        text = self._system.get(tools)
        if text is None:
            daemon = self._daemon
            text = self._system[tools] = build_system_prompt(
                override=daemon.system_override,
                workdir=daemon.workdir,
                tools=tools,
                agents_text=daemon.agents_text(),
            )
        return text

    async def find_output_fault(self, text: str) -> str | None:
        """Return why an answer does not fit the output schema, or None."""
        try:
            return await self._daemon.schemas.find_fault(self.terms.output_schema or {}, text)
        except CheckFailedError as failed:
            # Nothing is taken for valid that was not found to be.
            return f"$: it {failed.reason}"

    @property
    def takes_images(self) -> bool:
        """Whether the model is known to take images."""
        return self.terms.facts.takes_images is True

    def tool(self, name: str) -> Tool | None:
        """Return a tool by name, if there is one."""
        tool = self._daemon.toolbox.tools.get(name)
        return None if tool is None else self.seams.tool(tool)

    def tool_context(self, tool_call_id: str, progress: Callable[[str], Awaitable[None]]) -> ToolContext:
        """Return what a tool call gets to know and may use."""
        daemon = self._daemon
        return ToolContext(
            run_id=self._run_id,
            tool_call_id=tool_call_id,
            workdir=daemon.workdir,
            state_dir=daemon.state_root,
            outputs_root=daemon.outputs_root,
            outputs_dir=daemon.outputs_root / self._run_id,
            allow_outside_workdir=daemon.settings.tools.allow_outside_workdir,
            takes_images=self.takes_images,
            progress=progress,
        )


def context_digest(path: PathView) -> str:
    """Return the chained digest of a path, remembered at each message, so that a longer path costs its new part."""
    return complete(_digest_in_steps(path))


def prepare_context(session: Session, leaf_id: str) -> Steps[None]:
    """Find out, in steps, what :func:`make_run` asks of a long path: what it holds, its digest and what it costs.

    Raises ``command_rejected`` for an unknown leaf.
    """
    path = yield from session.path_in_steps(leaf_id)
    yield from _digest_in_steps(path)


def _digest_in_steps(path: PathView) -> Steps[str]:
    key = f"context_digest:{path.compaction_id}"
    known = len(path)
    while known and key not in path[known - 1].wire:
        known -= 1
        if known % MESSAGES_PER_STEP == 0:
            yield
    digest = path[known - 1].wire[key].decode() if known else EMPTY_CONTEXT
    size = 0
    for number, entry in enumerate(path.after(known)):
        digest = chain_digest(digest, entry.message)
        entry.wire[key] = digest.encode()
        size += len(entry.message.text)
        if size > SLICE_BYTES or number % MESSAGES_PER_STEP == 0:
            size = 0
            yield
    return digest


def make_run(
    daemon: Daemon,
    session: Session,
    run_id: str,
    leaf_id: str,
    terms: RunTerms,
    on_end: Callable[[RunDriver], None],
) -> RunDriver:
    """Make a run's parts and its trace file with the header; nothing has happened yet.

    Raises ``io_failure`` if the trace cannot be made; none is left then.
    """
    settings = daemon.settings
    path = session.path(leaf_id)
    resources = Resources(daemon, session, run_id, path, terms)
    active = daemon.toolbox.active if terms.uses_tools else ()
    spec = RunSpec(
        run_id=run_id,
        session_id=session.id,
        leaf_id=leaf_id,
        provider=terms.choice.provider,
        model=terms.choice.model,
        thinking=terms.choice.thinking or "",
        prices=terms.facts.prices,
        output_schema=terms.output_schema,
        output_tools=terms.output_schema is not None and terms.uses_tools,
        answer_form=2,
        runs_cut_calls=False,
        shows_tool_output=True,
        error_reasons=True,
        context_digest=context_digest(path),
        context_tokens=path.estimated_tokens,
        system_digest=hashlib.sha256(resources.system(active).encode()).hexdigest(),
        known_tools=tuple(sorted(daemon.toolbox.tools)),
        active_tools=active,
        steering_mode=daemon.steering_mode,
        follow_up_mode=daemon.follow_up_mode,
        limits=EngineLimits(
            max_model_calls=settings.engine.max_model_calls,
            abort_grace_ms=settings.daemon.abort_grace_ms,
            max_message_bytes=settings.daemon.max_message_bytes,
            compact_at_tokens=settings.engine.compact_at_tokens,
            max_retries=settings.retry.max_retries,
            retry_first_delay_ms=settings.retry.first_delay_ms,
            retry_max_delay_ms=settings.retry.max_delay_ms,
            retry_total_ms=settings.retry.total_ms,
            retry_seed=zlib.crc32(run_id.encode()),
            inline_text_bytes=min(INLINE_TEXT_BYTES, settings.daemon.max_event_bytes // 4),
            max_event_bytes=settings.daemon.max_event_bytes,
        ),
        hooks=tuple(sorted(daemon.extensions.hooks & RUN_HOOKS)),
    )
    spec = daemon.seams.spec(spec)
    recorder = Recorder(TraceWriter.create(daemon.traces_root, run_id))
    try:
        recorder.header(trace_header(daemon, spec, path))
    except BaseException:
        recorder.discard()
        raise
    publisher = Publisher(run_id, daemon.hub, daemon.syncs, synced_files(settings.trace.fsync, recorder, session))
    return RunDriver(
        machine=RunMachine(spec),
        gate=daemon.seams.gate(run_id),
        recorder=recorder,
        performer=Performer(resources, publisher.room, settings.daemon.max_event_bytes),
        publisher=publisher,
        clock=daemon.clock,
        sync_on=frozenset({AgentEnd}) if settings.trace.fsync == "run" else SYNC_EVENTS,
        on_end=on_end,
    )


def synced_files(policy: str, recorder: Recorder, session: Session) -> tuple[BeginSync, ...]:
    """Return what has to be synced before a run's answer counts: its trace and its session, or nothing."""
    return () if policy == "off" else (recorder.begin_sync, session.begin_sync)


def trace_header(daemon: Daemon, spec: RunSpec, path: PathView) -> dict[str, object]:
    """Return the fields of ``trace.header`` (docs/runtime-trace.md)."""
    entries = len(path)
    faults = daemon.seams.faults
    capabilities = ((STRUCTURED_OUTPUT_TOOLS,) if spec.output_tools else ()) + ((FAULT_INJECTION,) if faults else ())
    given_id = {} if daemon.correlation_id is None else {"correlation_id": daemon.correlation_id}
    return {
        "trace_version": TRACE_VERSION,
        "v": PROTOCOL_VERSION,
        "run_id": spec.run_id,
        "session_id": spec.session_id,
        "leaf_id": spec.leaf_id,
        "epoch": daemon.epoch,
        **given_id,
        "created_at": daemon.clock.now(),
        "server_version": daemon.version,
        "engine_version": ENGINE_VERSION,
        "schema_digest": SCHEMA_DIGEST,
        "config_digest": daemon.config_digest,
        "provider": {"name": spec.provider, "model": spec.model},
        "active_tools": spec.active_tools,
        "limits": spec.limits,
        "capabilities": capabilities,
        **({} if faults is None else {"faults": faults}),
        "spec": spec,
        "context": {"entries": entries, "digest": spec.context_digest, "compaction_id": path.compaction_id},
        "capture": {**dict.fromkeys(RECORDED_SEAMS, "recorded"), "context": "referenced" if entries else "recorded"},
        "redaction": "none",
    }
