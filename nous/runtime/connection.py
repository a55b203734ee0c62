"""One connection: bytes in, commands dispatched, answers out.  The same for every transport.

Answers are matched by ``id``, so a command that waits (a sync prompt) never keeps a later one from being read.  In
legacy mode (:mod:`nous.runtime.mode`) they leave in the order of the commands; nothing else waits for them.
Commands that change something take turns in arrival order, in tasks that belong to the daemon: the end of their
connection does not end them.  ``ping``, ``hello``, ``abort``, ``steer`` and ``follow_up`` wait for no other command;
reads run in tasks of the connection, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup

from nous.engine.inputs import FollowedUp, Steered
from nous.errors import NousError, as_nous_error
from nous.ports.endpoint import BrokenEndpointError, Endpoint
from nous.protocol.bounds import bound_payload
from nous.protocol.codec import CommandDecoder, Refused
from nous.protocol.commands import (
    IMMEDIATE_READS,
    READ_ONLY,
    UNORDERED,
    Abort,
    Command,
    CompactSession,
    FollowUp,
    Prompt,
    Steer,
)
from nous.protocol.responses import Answer, Result, encode_answer, error_line, mark_duplicate, success_line
from nous.runtime.answer_order import AnswerOrder, AnswerPlace
from nous.runtime.daemon import Daemon
from nous.runtime.handlers import HANDLERS, Call, Reply
from nous.runtime.hub import Listener
from nous.runtime.mode import Mode
from nous.runtime.order import Order, Turn
from nous.runtime.outbox import Outbox
from nous.runtime.remembered import Remembered, RememberedAnswers, repeated_answer
from nous.runtime.upcoming import HeldAbort, HeldInput
from nous.system.threads import run_in_thread
from nous.telemetry.log import get_log

log = get_log("runtime")

UNREAD_ANSWERS_BYTES: Final = 1024 * 1024
"""A peer that leaves more than this unread is not read further (protocol v1, section 6)."""

MAX_PENDING: Final = 1024
"""Commands of one connection that may wait for their answers at once; the next line is read when one is answered."""


class Connection:
    """Serves one peer until it has no more to say; what is pending then is still answered.

    ``prompt_wait`` is what ``wait`` means when a prompt leaves it out; ``listener`` gets events (on stdio from the
    start, on a socket once ``hello`` asked for the feature ``events``).
    """

    def __init__(
        self,
        daemon: Daemon,
        endpoint: Endpoint,
        outbox: Outbox,
        listener: Listener,
        *,
        is_stdio: bool,
        on_end_of_input: Callable[[], None] = lambda: None,
    ) -> None:
        self.daemon = daemon
        self.outbox = outbox
        self.listener = listener
        self.is_stdio = is_stdio
        self.prompt_wait = True
        self.said_hello = False
        self.decoder = CommandDecoder(daemon.settings.daemon.max_line_bytes, daemon.unfinished_lines)
        self._endpoint = endpoint
        self._on_end_of_input = on_end_of_input
        self._answers = AnswerOrder(outbox)
        self._remembered = RememberedAnswers()
        self._pending = 0
        # Of these, commands that wait for their turn or have it.
        self._in_order = 0
        self._reads = Order()
        # Steers and follow-ups that wait for the run that they mean.
        self._inputs = Order()
        self._answered = anyio.Event()

    @property
    def mode(self) -> Mode:
        """The rules that hold for this connection."""
        return Mode.CURRENT if self.is_stdio or self.said_hello else Mode.LEGACY

    async def serve(self) -> None:
        """Read to the end of the stream, then wait until everything pending is answered.

        Cancelling this ends the connection alone: commands that change something, and runs, go on in the daemon.
        """
        async with anyio.create_task_group() as tasks:
            try:
                while data := await self._endpoint.receive():
                    await self._take(self.decoder.feed(data), tasks)
                await self._take(self.decoder.finish(), tasks)
            except BrokenEndpointError:
                return
            finally:
                self.decoder.close()
            # Prompts that were sent count as accepted runs, also if they are still being taken up.
            while self._in_order:
                await self._answered.wait()
            self._on_end_of_input()
            await self.wait_idle()

    def configure(self, *, features: Sequence[str], strict: bool, prompt_wait: bool | None) -> None:
        """Take what ``hello`` asked for; it counts from the next line on."""
        self.decoder.strict = strict
        self.prompt_wait = True if prompt_wait is None else prompt_wait
        self.said_hello = True
        self.listener.features = frozenset(features) - {"events"}
        if not self.is_stdio:
            if "events" in features:
                self.daemon.hub.add(self.listener)
            else:
                self.daemon.hub.remove(self.listener)

    def say_ready(self) -> None:
        """Introduce the daemon to a socket connection that said ``hello``; on stdio that came first of all."""
        if not self.is_stdio:
            self.outbox.put(self.daemon.event_line(self.daemon.ready()))

    def say_bye(self, line: bytes) -> None:
        """Send the last line to a socket client that said hello."""
        if self.said_hello and not self.is_stdio:
            self.outbox.put(line)

    async def wait_idle(self) -> None:
        """Wait until no command is pending."""
        while self._pending:
            await self._answered.wait()

    async def _take(self, items: Iterator[Command | Refused], tasks: TaskGroup) -> None:
        for item in items:
            if isinstance(item, Refused):
                self._put_error(self._place(), item.id, "", item.error)
            else:
                await self._dispatch(item, tasks, self._place(item))
            await self._pace()

    def _place(self, command: Command | None = None) -> AnswerPlace:
        is_hello = command is not None and command.type == "hello"
        return self._answers.place(in_order=self.mode.answers_in_order and not is_hello)

    async def _pace(self) -> None:
        await self.outbox.room(UNREAD_ANSWERS_BYTES)
        while self._pending >= MAX_PENDING or self._answers.held_bytes > UNREAD_ANSWERS_BYTES:
            await self._answered.wait()

    async def _dispatch(self, command: Command, tasks: TaskGroup, place: AnswerPlace) -> None:
        """Have a command answered: at once, in a task of this connection (reads), or in one of the daemon's.

        Only the last ones outlive the connection, and only they wait for each other.
        """
        self._pending += 1
        if command.type in IMMEDIATE_READS:
            await self._answer(Call(self, command.id, place), command, remember=False)
        elif command.type in READ_ONLY:
            tasks.start_soon(self._read, Call(self, command.id, place), command, self._turn_to_read())
        else:
            await self._change(Call(self, command.id, place), command, tasks)

    def _turn_to_read(self) -> Turn:
        # Where answers leave in order, the place of the answer says whose turn it is.
        return (Order() if self.mode.answers_in_order else self._reads).ask()

    async def _read(self, call: Call, command: Command, turn: Turn) -> None:
        async with turn:
            # One after the other, so that a peer that reads no answers has one of them in memory and not all.
            await call.place.until_next()
            await self.outbox.room(UNREAD_ANSWERS_BYTES)
            await self._answer(call, command, remember=False)

    async def _change(self, call: Call, command: Command, tasks: TaskGroup) -> None:
        try:
            earlier = self._remembered.begin(command)
        except NousError as error:
            self._refuse(call, command, error)
            self._settle()
            return
        if earlier is not None:
            tasks.start_soon(self._repeat, call, command, earlier, tasks)
        elif isinstance(command.payload, Abort):
            await self._abort(call, command, command.payload.run_id)
        elif isinstance(command.payload, Steer | FollowUp) and not self._waits(command.payload.run_id):
            await self._answer(call, command, remember=True)
        else:
            self._hold(call, command)

    def _waits(self, run_id: str | None) -> bool:
        """Whether a steer or a follow-up waits for its run, or behind others that do."""
        return self.daemon.upcoming_run(run_id) is not None or (run_id is None and self._inputs.busy)

    def _hold(self, call: Call, command: Command) -> None:
        """Have a command answered in a task of the daemon, unless too many wait already: then it is refused."""
        daemon, payload = self.daemon, command.payload
        try:
            leave = daemon.backlog.enter(len(command.raw_payload))
        except NousError as error:
            self._refuse(call, command, error)
            self._remembered.drop_unfinished(command.id)
            self._settle()
            return
        if isinstance(payload, Steer | FollowUp):
            upcoming = daemon.upcoming_run(payload.run_id)
            held = HeldInput(_input_of(command.id, payload))
            if upcoming is not None:
                upcoming.hold(held)
            turn = self._inputs.ask()
            turn.on_release(leave)
            daemon.start_task(self._answer_input, call._replace(held=held, upcoming=upcoming), command, turn)
        elif command.type in UNORDERED:
            daemon.start_task(self._answer_beside, call, command, leave)
        else:
            self._ask_for_turn(call, command, leave)

    async def _answer_beside(self, call: Call, command: Command, leave: Callable[[], None]) -> None:
        try:
            await self._answer(call, command)
        finally:
            leave()

    async def _abort(self, call: Call, command: Command, run_id: str | None) -> None:
        """Abort the run that is meant: at once, or when it begins if it is still being taken up."""
        daemon = self.daemon
        upcoming = daemon.upcoming_run(run_id)
        if upcoming is None:
            await self._answer(call, command, remember=True)
            return
        held = daemon.upcoming.abort(upcoming, daemon.active_session_id if run_id is None else None, command.id)
        daemon.start_task(self._answer_abort, call._replace(held=held, upcoming=upcoming), command)

    async def _answer_abort(self, call: Call, command: Command) -> None:
        """Answer an abort once its run has begun aborted, or the command that asked for that run has been refused."""
        assert isinstance(call.held, HeldAbort)
        await call.held.settled.wait()
        await self._answer(call, command, remember=True)

    def _ask_for_turn(self, call: Call, command: Command, leave: Callable[[], None]) -> None:
        daemon, payload = self.daemon, command.payload
        upcoming = None
        if isinstance(payload, Prompt | CompactSession):
            names_none = isinstance(payload, Prompt) and payload.session_id is None
            upcoming = daemon.upcoming.add(payload.session_id, is_alone=names_none and self.mode.one_run_at_a_time)
        turn = daemon.order.ask(self)
        turn.on_release(partial(self._leave_order, leave))
        self._in_order += 1
        daemon.start_task(self._answer_in_turn, call._replace(turn=turn, upcoming=upcoming), command)

    async def _answer_input(self, call: Call, command: Command, turn: Turn) -> None:
        """Answer a steer or a follow-up once it is known whether there is the run that it means.

        If there is not, the one that is coming up then is meant; and those that came before it are answered before.
        """
        upcoming, held = call.upcoming, call.held
        assert isinstance(held, HeldInput)
        assert isinstance(command.payload, Steer | FollowUp)
        run_id = command.payload.run_id
        async with turn:
            while upcoming is not None:
                await upcoming.settled.wait()
                upcoming = None if held.is_settled else self.daemon.upcoming_run(run_id)
                if upcoming is not None:
                    upcoming.hold(held)
            await self._answer(call, command, remember=True)

    async def _answer_in_turn(self, call: Call, command: Command) -> None:
        assert call.turn is not None
        try:
            async with call.turn:
                await self._answer(call, command, remember=True)
        finally:
            if call.upcoming is not None:
                self.daemon.upcoming.settle(call.upcoming)

    def _leave_order(self, leave: Callable[[], None]) -> None:
        leave()
        self._in_order -= 1
        self._notify()

    async def _repeat(self, call: Call, command: Command, earlier: Remembered, tasks: TaskGroup) -> None:
        """Give the answer of the same command that was sent before, once it has one."""
        answer = await repeated_answer(earlier)
        if answer is None:
            # The first one was refused, and a refused command is as if it was never sent.
            self._settle()
            await self._dispatch(command, tasks, call.place)
            return
        async with self._turn_to_read():
            await call.place.until_next()
            await self.outbox.room(UNREAD_ANSWERS_BYTES)
            kind, payload = answer
            if kind == "result":
                payload = await self._result_again(payload)
            call.place.put(success_line(command.id, kind, mark_duplicate(payload)))
        self._settle()

    async def _result_again(self, payload: bytes) -> bytes:
        from nous.runtime.results import with_events

        daemon = self.daemon
        limit = daemon.settings.daemon.max_event_bytes
        return await run_in_thread(with_events, payload, daemon.traces_root, limit)

    async def _answer(self, call: Call, command: Command, *, remember: bool = True) -> None:
        """Run a command's handler and send its answer, whatever it comes to."""
        try:
            await self._run_handler(call, command, remember=remember)
        finally:
            if remember:
                self._remembered.drop_unfinished(command.id)
            self._settle()

    async def _run_handler(self, call: Call, command: Command, *, remember: bool) -> None:
        reply: Reply | None = None
        try:
            handler = HANDLERS.get(command.type)
            if handler is None:
                raise NousError("capability_unavailable", command.type)
            out = await handler(call, command.payload)
            reply = out if isinstance(out, Reply) else Reply(out)
            kind, payload = encode_answer(reply.answer)
            payload = bound_payload(payload, self.daemon.settings.daemon.max_event_bytes)
            line = success_line(command.id, kind, payload)
            kept = encode_remembered(reply.answer, payload) if remember else b""
        except Exception as error:
            if not isinstance(error, NousError):
                log.error("command_crashed", command=command.type, error=repr(error))
            self._refuse(call, command, as_nous_error(error))
        else:
            call.place.put(line)
            if remember:
                self._remembered.finish(command.id, kind, kept)
        finally:
            if reply is not None and reply.then is not None:
                reply.then()

    def _refuse(self, call: Call, command: Command, error: NousError) -> None:
        self._put_error(call.place, command.id, command.type, error)

    def _put_error(self, place: AnswerPlace, command_id: str, command_type: str, error: NousError) -> None:
        """Answer with an error.  A client's own mistakes are its own business: they are logged for debugging alone."""
        note = log.debug if error.category == "invalid_input" else log.info
        note("command_refused", command=command_type, code=error.code, category=error.category)
        place.put(error_line(command_id, error, self.daemon.correlation_id))

    def _settle(self) -> None:
        self._pending -= 1
        self._notify()

    def _notify(self) -> None:
        answered, self._answered = self._answered, anyio.Event()
        answered.set()


def _input_of(command_id: str, payload: Steer | FollowUp) -> Steered | FollowedUp:
    made = Steered if isinstance(payload, Steer) else FollowedUp
    return made(command_id, payload.text)


def encode_remembered(answer: Answer, payload: bytes) -> bytes:
    """Return the payload to keep for a repeated id: a ``result`` without its events."""
    if isinstance(answer, Result):
        return encode_answer(msgspec.structs.replace(answer, events=[]))[1]
    return payload
