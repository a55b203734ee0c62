"""One short function per command, in one table.  A command without a row is answered ``capability_unavailable``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import anyio
from msgspec import UNSET

from nous.engine.inputs import CompactionStarted, FollowedUp, RunStarted, Steered
from nous.errors import NousError
from nous.protocol import commands as c
from nous.protocol.digest import SCHEMA_DIGEST
from nous.protocol.events import CONNECTION_FEATURES
from nous.protocol.responses import (
    PROTOCOL_VERSION,
    Accepted,
    Answer,
    Compaction,
    ExtensionResult,
    HelloAnswer,
    Leaf,
    Limits,
    Messages,
    PendingCounts,
    Pong,
    Result,
    RunInfo,
    SessionAnswer,
    State,
    ToolInfo,
    Tools,
    Tree,
)
from nous.runtime.launch import nothing_to_compact, start_compaction, start_run
from nous.runtime.model_commands import list_models, set_model
from nous.runtime.pages import page_messages, page_tree
from nous.runtime.terms import check_output_schema, choice_in_force, settle_prompt
from nous.system.steps import complete_async

if TYPE_CHECKING:
    from nous.runtime.answer_order import AnswerPlace
    from nous.runtime.connection import Connection
    from nous.runtime.driver import RunDriver
    from nous.runtime.order import Turn
    from nous.runtime.upcoming import HeldAbort, HeldInput, UpcomingRun


class Call(NamedTuple):
    """What a handler knows besides the payload.

    ``place`` is where its answer goes, ``turn`` its turn among the changes, ``upcoming`` the run that the command asks
    for, ``held`` the input or abort that may have reached its run before the handler is called, if it has one.
    """

    connection: Connection
    command_id: str
    place: AnswerPlace
    turn: Turn | None = None
    upcoming: UpcomingRun | None = None
    held: HeldInput | HeldAbort | None = None


class Reply(NamedTuple):
    """An answer, and what happens right after it was sent; ``then`` is called also where the answer could not be."""

    answer: Answer
    then: Callable[[], None] | None = None


async def ping(call: Call, payload: c.Ping) -> Pong:
    """Answer."""
    return Pong()


async def hello(call: Call, payload: c.Hello) -> Reply:
    """Grant features and tell the limits."""
    conn = call.connection
    daemon = conn.daemon
    settings = daemon.settings.daemon
    granted = [f for f in CONNECTION_FEATURES if f in (payload.features or ())]
    conn.configure(features=granted, strict=bool(payload.strict), prompt_wait=payload.prompt_wait)
    answer = HelloAnswer(
        server="nous",
        version=daemon.version,
        protocol=PROTOCOL_VERSION,
        epoch=daemon.epoch,
        features=granted,
        commands=sorted(HANDLERS),
        limits=Limits(
            max_line_bytes=settings.max_line_bytes,
            max_event_bytes=settings.max_event_bytes,
            max_message_bytes=settings.max_message_bytes,
            max_runs=settings.max_runs,
            abort_grace_ms=settings.abort_grace_ms,
            command_timeout_ms=settings.command_timeout_ms,
        ),
        schema_digest=SCHEMA_DIGEST,
    )
    return Reply(answer, conn.say_ready)


# -- runs


async def prompt(call: Call, payload: c.Prompt) -> Answer | Reply:
    """Start a run and answer at once, or (``wait``) when it has ended."""
    conn = call.connection
    daemon = conn.daemon
    if not daemon.accepting:
        raise NousError("shutting_down")
    assert call.upcoming is not None
    daemon.check_may_start(call.upcoming)
    if payload.output_schema is not None:
        assert call.turn is not None
        # It may take seconds: the commands of other clients do not wait for it.
        async with call.turn.aside():
            await check_output_schema(daemon.schemas, payload.output_schema)
    found = await daemon.named_or_active_session(payload.session_id)
    terms = await settle_prompt(daemon, found, payload)
    daemon.check_may_start(call.upcoming)
    session = await daemon.session_for_prompt(found, payload.leaf_id)
    first = RunStarted(call.command_id, payload.text, terms.images)
    driver = await start_run(daemon, session, first, terms, payload.leaf_id, call.upcoming)
    daemon.prompters.note_prompt(conn.listener.peer_pid, driver.run_id)
    wait = conn.prompt_wait if payload.wait is None else payload.wait
    if not wait:
        answer = Accepted(
            command="prompt",
            run_id=driver.run_id,
            session_id=session.id,
            leaf_id=driver.spec.leaf_id or UNSET,
        )
        return Reply(answer, driver.open)
    _let_go(call, driver)
    return await _await_result(call, driver)


def _let_go(call: Call, driver: RunDriver) -> None:
    """Open a run whose command is answered later, and let other commands go on."""
    daemon = call.connection.daemon
    driver.open()
    if call.upcoming is not None:
        daemon.upcoming.settle(call.upcoming)
    if call.turn is not None:
        call.turn.release()


async def _await_result(call: Call, driver: RunDriver) -> Result:
    daemon = call.connection.daemon
    await _await_end(call, driver)
    from nous.runtime.results import run_result

    return run_result(driver, daemon.traces_root, daemon.settings.daemon.max_event_bytes)


async def _await_end(call: Call, driver: RunDriver) -> None:
    """Wait for a run's end.  Raises ``timeout`` (the run goes on), or why the run failed."""
    daemon = call.connection.daemon
    ids: dict[str, object] = {"run_id": driver.run_id, "session_id": driver.session_id}
    timeout_ms = daemon.settings.daemon.command_timeout_ms
    with anyio.move_on_after(timeout_ms / 1000):
        await driver.ended.wait()
    if not driver.ended.is_set():
        raise NousError("timeout", f"no end after {timeout_ms} ms", data=ids)
    if not call.connection.outbox.broken:
        # The answer tells how the run ended.
        daemon.prompters.note_seen(call.connection.listener.peer_pid, driver.run_id)
    if driver.failure is not None:
        raise NousError(driver.failure.code, driver.failure.cause, data=ids)


async def compact_session(call: Call, payload: c.CompactSession) -> Compaction:
    """Compact a session, and answer when that is done."""
    daemon = call.connection.daemon
    session = await daemon.named_or_active_session(payload.session_id)
    if session is None:
        raise nothing_to_compact()
    assert call.upcoming is not None
    first = CompactionStarted(call.command_id, payload.instruction or "")
    driver = await start_compaction(daemon, session, first, call.upcoming)
    _let_go(call, driver)
    await _await_end(call, driver)
    entry = driver.compaction
    if entry is None:
        raise NousError("command_rejected", "aborted", data={"run_id": driver.run_id, "session_id": driver.session_id})
    return Compaction(
        session_id=session.id,
        summary=entry.summary,
        first_kept_entry_id=entry.first_kept_entry_id,
        tokens_before=entry.tokens_before,
        trigger=entry.trigger,
    )


def _queue(call: Call, run_id: str | None, item: Steered | FollowedUp) -> RunDriver:
    """Give an input to the run that is meant, unless it has it already.  Raises if it does not take it."""
    driver = None if call.held is None else call.held.taker()
    if driver is None:
        driver = call.connection.daemon.find_run(run_id)
        driver.check_queue()
        driver.submit(item)
    return driver


def _refuse_images(payload: c.Steer | c.FollowUp) -> None:
    """Raise ``invalid_payload`` for an input with images: a run takes them with its prompt only."""
    if payload.images:
        hint = "Send them with a prompt, once the run has ended."
        raise NousError("invalid_payload", f"images: a {payload.kind} carries none", hint=hint)


async def steer(call: Call, payload: c.Steer) -> Accepted:
    """Queue a steer in a run."""
    _refuse_images(payload)
    driver = _queue(call, payload.run_id, Steered(call.command_id, payload.text))
    return Accepted(command="steer", run_id=driver.run_id)


async def follow_up(call: Call, payload: c.FollowUp) -> Accepted:
    """Queue a follow-up in a run."""
    _refuse_images(payload)
    driver = _queue(call, payload.run_id, FollowedUp(call.command_id, payload.text))
    return Accepted(command="follow_up", run_id=driver.run_id)


async def abort(call: Call, payload: c.Abort) -> Reply:
    """Acknowledge before it takes effect: the answer stands before the run's last events."""
    driver = None if call.held is None else call.held.taker()
    if driver is not None:
        return Reply(Accepted(command="abort", run_id=driver.run_id))
    found = call.connection.daemon.find_run(payload.run_id)
    return Reply(Accepted(command="abort", run_id=found.run_id), lambda: found.abort(call.command_id, "client"))


# -- modes and tools


async def set_active_tools(call: Call, payload: c.SetActiveTools) -> Accepted:
    """Choose the tools that runs may use."""
    daemon = call.connection.daemon
    await daemon.extensions.ready()
    names = daemon.toolbox.check(payload.tools)
    daemon.set_active_tools(names)
    return Accepted(command="set_active_tools", count=len(names))


async def set_steering_mode(call: Call, payload: c.SetSteeringMode) -> Accepted:
    """Choose how many queued steers a turn takes."""
    call.connection.daemon.set_steering_mode(payload.mode)
    return Accepted(command="set_steering_mode", mode=payload.mode)


async def set_follow_up_mode(call: Call, payload: c.SetFollowUpMode) -> Accepted:
    """Choose how many queued follow-ups a turn takes."""
    call.connection.daemon.set_follow_up_mode(payload.mode)
    return Accepted(command="set_follow_up_mode", mode=payload.mode)


async def list_tools(call: Call, payload: c.ListTools) -> Tools:
    """Return all tools and which are active."""
    daemon = call.connection.daemon
    return Tools(
        tools=[
            ToolInfo(
                name=t.name,
                description=t.description,
                source=t.source,
                active=t.name in daemon.toolbox.active,
                schema=t.schema,
            )
            for t in daemon.toolbox.tools.values()
        ]
    )


# -- what there is


async def get_state(call: Call, payload: c.GetState) -> State:
    """Return the daemon's and the active session's state."""
    daemon = call.connection.daemon
    session = await daemon.named_or_active_session(payload.session_id)
    session_id = "" if session is None else session.id
    choice = choice_in_force(daemon.catalogue, session)
    spent = daemon.spent_in(session_id)
    run = daemon.run_of(session_id) if session_id else None
    if run is None and payload.session_id is None:
        run = daemon.unnamed_run()
    return State(
        run_state="idle" if run is None else run.state,
        run_id="" if run is None else run.run_id,
        session_id=session_id,
        steering_mode=daemon.steering_mode,
        follow_up_mode=daemon.follow_up_mode,
        pending_counts=PendingCounts() if run is None else run.pending_counts,
        runs=[_run_info(r) for r in daemon.runs.values()],
        active_tools=list(daemon.toolbox.active),
        provider=choice.provider,
        model=choice.model,
        thinking=choice.thinking or UNSET,
        provider_builds=daemon.catalogue.builds,
        epoch=daemon.epoch,
        usage=spent.usage,
        cost_usd=spent.shown_cost,
        extensions=daemon.extensions.states() or UNSET,
        health=daemon.health(),
    )


def _run_info(run: RunDriver) -> RunInfo:
    return RunInfo(
        run_id=run.run_id,
        session_id=run.session_id,
        run_state=run.state,
        started_at=run.started_at,
        seq=run.published_seq,
        pending_counts=run.pending_counts,
        provider=run.spec.provider,
        model=run.spec.model,
        usage=run.spent.usage,
        cost_usd=run.spent.shown_cost,
    )


async def get_messages(call: Call, payload: c.GetMessages) -> Messages:
    """Return a page of a session's messages."""
    daemon = call.connection.daemon
    session = await daemon.named_or_active_session(payload.session_id)
    if session is None:
        return Messages(session_id="", messages=[])
    leaf_id = session.leaf_id if payload.leaf_id is None else payload.leaf_id
    find = session.path_in_steps if payload.view == "context" else session.full_path_in_steps
    path = await complete_async(find(leaf_id))
    page, cursor = page_messages(path, payload.cursor, daemon.settings.daemon.max_event_bytes)
    return Messages(session_id=session.id, messages=page, leaf_id=leaf_id or UNSET, next_cursor=cursor)


async def get_tree(call: Call, payload: c.GetTree) -> Tree:
    """Return a page of a session's tree."""
    daemon = call.connection.daemon
    session = await daemon.named_or_active_session(payload.session_id)
    if session is None:
        return Tree(session_id="", nodes=[])
    paging = page_tree(session.messages, payload.cursor, daemon.settings.daemon.max_event_bytes)
    nodes, cursor = await complete_async(paging)
    return Tree(session_id=session.id, nodes=nodes, leaf_id=session.leaf_id or UNSET, next_cursor=cursor)


# -- sessions


async def new_session(call: Call, payload: c.NewSession) -> SessionAnswer:
    """Make a session and make it the active one."""
    daemon = call.connection.daemon
    await daemon.ask_about_session("session_before_switch", daemon.active_session_id, {"reason": "new"})
    session = daemon.create_session()
    await daemon.uses.activate(session.id)
    await daemon.sync_session(session)
    return SessionAnswer(session_id=session.id, active=True)


async def switch_session(call: Call, payload: c.SwitchSession) -> SessionAnswer:
    """Make a session the active one."""
    if not payload.session_id:
        raise NousError("invalid_payload", "session_id: empty")
    daemon = call.connection.daemon
    session = await daemon.session(payload.session_id)
    asked = {"reason": "switch", "session_id": session.id}
    await daemon.ask_about_session("session_before_switch", daemon.active_session_id, asked)
    await daemon.uses.activate(session.id)
    return SessionAnswer(session_id=session.id, active=True, parent_id=session.parent_id or UNSET)


async def set_leaf(call: Call, payload: c.SetLeaf) -> Leaf:
    """Make a message the active leaf of a session."""
    daemon = call.connection.daemon
    session = await daemon.named_or_active_session(payload.session_id)
    if session is None:
        raise NousError("command_rejected", "leaf_id: there is no session yet", hint="new_session makes one.")
    if not payload.leaf_id:
        raise NousError("invalid_payload", "leaf_id: empty")
    daemon.check_free(session.id)
    await daemon.set_leaf(session, payload.leaf_id)
    return Leaf(session_id=session.id, leaf_id=payload.leaf_id)


async def branch_session(call: Call, payload: c.BranchSession) -> SessionAnswer:
    """Copy a path of a session into a new one and make that the active session."""
    if payload.source_id is None:
        raise NousError("invalid_payload", "session_id: required")
    daemon = call.connection.daemon
    source = await daemon.session(payload.source_id)
    asked = {"leaf_id": source.leaf_id if payload.leaf_id is None else payload.leaf_id}
    await daemon.ask_about_session("session_before_fork", source.id, asked)
    session = await daemon.branch_session(payload.source_id, payload.leaf_id)
    await daemon.uses.activate(session.id)
    await daemon.sync_session(session)
    return SessionAnswer(session_id=session.id, active=True, parent_id=payload.source_id)


async def extension_command(call: Call, payload: c.ExtensionCommand) -> ExtensionResult:
    """Have an extension carry out one of its commands."""
    daemon = call.connection.daemon
    if call.turn is not None:
        # It may take long, and changes nothing that others wait for.
        call.turn.release()
    await daemon.extensions.ready()
    result = await daemon.extensions.command(payload.name, payload.payload or {}, daemon.active_session_id)
    return ExtensionResult(result=result)


async def shutdown(call: Call, payload: c.Shutdown) -> Reply:
    """Answer, then stop the daemon in order."""
    daemon = call.connection.daemon
    return Reply(Accepted(command="shutdown"), lambda: daemon.stop.request("shutdown"))


Handler = Callable[[Call, Any], Awaitable[Answer | Reply]]


def recorded(name: str) -> Handler:
    """Return a handler that reads what runs left on disk; how, is loaded when it is asked for."""

    async def handle(call: Call, payload: Any) -> Answer | Reply:
        from nous.runtime import recorded as module

        handler: Handler = getattr(module, name)
        return await handler(call, payload)

    return handle


HANDLERS: Final[dict[str, Handler]] = {
    "ping": ping,
    "hello": hello,
    "prompt": prompt,
    "compact_session": compact_session,
    "steer": steer,
    "follow_up": follow_up,
    "abort": abort,
    "set_active_tools": set_active_tools,
    "set_steering_mode": set_steering_mode,
    "set_follow_up_mode": set_follow_up_mode,
    "list_tools": list_tools,
    "list_models": list_models,
    "set_model": set_model,
    "get_state": get_state,
    "get_messages": get_messages,
    "get_tree": get_tree,
    "get_events": recorded("get_events"),
    "list_runs": recorded("list_runs"),
    "export_trace": recorded("export_trace"),
    "list_sessions": recorded("list_sessions"),
    "new_session": new_session,
    "switch_session": switch_session,
    "set_leaf": set_leaf,
    "branch_session": branch_session,
    "extension_command": extension_command,
    "shutdown": shutdown,
}
