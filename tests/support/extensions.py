"""Extensions without processes: they answer what a test says, and write down what they were asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio

from nous.errors import NousError
from nous.ports.extensions import ExtensionListener, HookCall, HookName, HookOutcome
from nous.protocol.responses import ExtensionInfo

Answer = Callable[[HookCall], Awaitable[HookOutcome]]


async def say_nothing(call: HookCall) -> HookOutcome:
    return HookOutcome()


class RecordingExtensions:
    """See :class:`nous.ports.extensions.Extensions`.  ``answer`` says what each hook comes to."""

    def __init__(self, hooks: Iterable[HookName], answer: Answer = say_nothing) -> None:
        self.hooks = frozenset(hooks)
        self.answer = answer
        self.asked: list[HookCall] = []
        self.told: list[HookCall] = []
        self.stopped: list[HookCall] = []
        self.commands: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        self.listener: ExtensionListener | None = None
        self.is_ready = anyio.Event()
        self.is_ready.set()

    async def run(self, listener: ExtensionListener) -> None:
        self.listener = listener
        await anyio.sleep_forever()

    async def ready(self) -> None:
        await self.is_ready.wait()

    async def call(self, call: HookCall) -> HookOutcome:
        self.asked.append(call)
        try:
            return await self.answer(call)
        except anyio.get_cancelled_exc_class():
            self.stopped.append(call)
            raise

    def tell(self, call: HookCall) -> None:
        self.told.append(call)

    async def command(self, name: str, payload: dict[str, Any], session_id: str) -> dict[str, Any]:
        if name not in self.commands:
            raise NousError("command_rejected", f"no extension has a command {name!r}")
        return self.commands[name](payload)

    def states(self) -> list[ExtensionInfo]:
        return [ExtensionInfo(name="guard", version="1", state="up", restarts=0)] if self.hooks else []
