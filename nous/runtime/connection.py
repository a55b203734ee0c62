"""One connection: bytes in, commands dispatched, answers out.  The same for every transport.

Answers are matched by ``id``, so a command that waits (a sync prompt) never keeps a later one from being read.
Commands that change something take turns in arrival order; the others are answered at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup

from nous.errors import NousError, as_nous_error
from nous.ports.endpoint import BrokenEndpointError, Endpoint
from nous.protocol.codec import CommandDecoder, Refused
from nous.protocol.commands import READ_ONLY, UNORDERED, Command
from nous.protocol.responses import Answer, Result, encode_answer, error_line, mark_duplicate, success_line
from nous.runtime.daemon import Daemon
from nous.runtime.handlers import HANDLERS, Call, Reply
from nous.runtime.hub import Listener
from nous.runtime.order import Turn
from nous.runtime.outbox import Outbox
from nous.runtime.remembered import Remembered, RememberedAnswers, repeated_answer
from nous.telemetry.log import get_log

log = get_log("runtime")

UNREAD_ANSWERS_BYTES: Final = 1024 * 1024
"""A peer that leaves more than this unread is not read further (protocol v1, section 3)."""

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
        self.decoder = CommandDecoder(daemon.settings.daemon.max_line_bytes)
        self._endpoint = endpoint
        self._on_end_of_input = on_end_of_input
        self._remembered = RememberedAnswers()
        self._pending = 0
        self._answered = anyio.Event()

    async def serve(self) -> None:
        """Read to the end of the stream, then wait until everything pending is answered."""
        async with anyio.create_task_group() as tasks:
            try:
                while data := await self._endpoint.receive():
                    await self._take(self.decoder.feed(data), tasks)
            except BrokenEndpointError:
                return
            await self._take(self.decoder.finish(), tasks)
            # Prompts that were sent count as accepted runs, also if they are still being taken up.
            await self.daemon.order.settled()
            self._on_end_of_input()

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
        if self.said_hello and not self.is_stdio:
            self.outbox.put(line)

    async def wait_idle(self) -> None:
        """Wait until no command is pending."""
        while self._pending:
            await self._answered.wait()

    async def _take(self, items: Iterator[Command | Refused], tasks: TaskGroup) -> None:
        for item in items:
            if isinstance(item, Refused):
                self._put_error(item.id, "", item.error)
            else:
                await self._dispatch(item, tasks)
            await self._pace()

    async def _pace(self) -> None:
        await self.outbox.room(UNREAD_ANSWERS_BYTES)
        while self._pending >= MAX_PENDING:
            await self._answered.wait()

    async def _dispatch(self, command: Command, tasks: TaskGroup) -> None:
        self._pending += 1
        if command.type in READ_ONLY:
            await self._answer(command, remember=False)
            return
        try:
            earlier = self._remembered.begin(command)
        except NousError as error:
            self._refuse(command, error)
            return
        if earlier is not None:
            tasks.start_soon(self._repeat, command, earlier, tasks)
        elif command.type in UNORDERED and not self.daemon.order.busy:
            await self._answer(command, remember=True)
        else:
            # Also for steer, follow_up and abort while a change is under way: a prompt sent before them is still being
            # taken up, and they mean its run.
            self.daemon.order.ask()
            tasks.start_soon(self._answer_in_turn, command)

    async def _repeat(self, command: Command, earlier: Remembered, tasks: TaskGroup) -> None:
        answer = await repeated_answer(earlier)
        self._settle()
        if answer is None:
            # The first one was refused, and a refused command is as if it was never sent.
            await self._dispatch(command, tasks)
        else:
            self.outbox.put(success_line(command.id, answer[0], mark_duplicate(answer[1])))

    async def _answer_in_turn(self, command: Command) -> None:
        async with self.daemon.order.turn() as turn:
            await self._answer(command, remember=True, turn=turn)

    async def _answer(self, command: Command, *, remember: bool, turn: Turn | None = None) -> None:
        """Run a command's handler and send its answer, whatever it comes to."""
        try:
            handler = HANDLERS.get(command.type)
            if handler is None:
                raise NousError("capability_unavailable", command.type)
            out = await handler(Call(self, command.id, turn), command.payload)
            reply = out if isinstance(out, Reply) else Reply(out)
        except Exception as error:
            if not isinstance(error, NousError):
                log.error("command_crashed", command=command.type, error=repr(error))
            if remember:
                self._remembered.forget(command.id)
            self._refuse(command, as_nous_error(error))
            return
        kind, payload = encode_answer(reply.answer)
        self.outbox.put(success_line(command.id, kind, payload))
        if remember:
            self._remembered.finish(command.id, kind, encode_remembered(reply.answer, payload))
        self._settle()
        if reply.then is not None:
            reply.then()

    def _refuse(self, command: Command, error: NousError) -> None:
        self._put_error(command.id, command.type, error)
        self._settle()

    def _put_error(self, command_id: str, command_type: str, error: NousError) -> None:
        """Answer with an error.  A client's own mistakes are its own business: they are logged for debugging alone."""
        note = log.debug if error.category == "invalid_input" else log.info
        note("command_refused", command=command_type, code=error.code, category=error.category)
        self.outbox.put(error_line(command_id, error, self.daemon.correlation_id))

    def _settle(self) -> None:
        self._pending -= 1
        answered, self._answered = self._answered, anyio.Event()
        answered.set()


def encode_remembered(answer: Answer, payload: bytes) -> bytes:
    """Return the payload to keep for a repeated id: a ``result`` without its events."""
    if isinstance(answer, Result):
        return encode_answer(msgspec.structs.replace(answer, events=[]))[1]
    return payload
