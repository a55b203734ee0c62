"""The seams of a run: where everything that is not deterministic enters.  Live here; a replay puts its own in place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from nous.engine.effects import AskPolicy, CheckOutput, StartTimer
from nous.engine.inputs import Input, OutputChecked, Stamp
from nous.engine.spec import RunSpec
from nous.ports.extensions import Extensions
from nous.ports.model import Provider
from nous.ports.system import Clock
from nous.ports.tool import Tool
from nous.protocol.entries import Compaction
from nous.protocol.messages import Message

if TYPE_CHECKING:
    from nous.config.faults import FaultPlan


FindOutputFault = Callable[[str], Awaitable[str | None]]
"""Returns what keeps an answer from fitting the run's output schema, or None.  Never raises."""


class Admitted(NamedTuple):
    """An input that may be stepped now, with its stamp."""

    stamp: Stamp
    item: Input


class InputGate(Protocol):
    """What every input of one run passes before it is stepped."""

    def admit(self, item: Input) -> Sequence[Admitted]:
        """Take note that ``item`` has come up; return the inputs to step now, in order."""
        ...


class EntryLog(Protocol):
    """What a run needs of its session."""

    def try_append(self, entry: Message | Compaction, /) -> bool:
        """Append if that takes no waiting.  Raises a :class:`nous.errors.NousError` if it cannot be done."""
        ...

    async def append(self, entry: Message | Compaction, /) -> None:
        """Append an entry; it is on disk once this returns."""


class Seams(Protocol):
    """What stands between a run and the world: the real thing, planned faults, or a recording."""

    def spec(self, spec: RunSpec) -> RunSpec:
        """Return what the run is made with."""
        ...

    def gate(self, run_id: str) -> InputGate:
        """Return what stamps and orders a run's inputs."""

    def entries(self, log: EntryLog) -> EntryLog:
        """Return the log that a run appends to."""

    def allows(self, effect: AskPolicy) -> tuple[bool, str | None]:
        """Answer a policy question: whether, and if not, why not."""
        ...

    def extensions(self, live: Extensions) -> Extensions:
        """Return what a run asks its hooks of; ``live`` are the daemon's own."""
        ...

    def provider(self, live: Provider) -> Provider:
        """Return what a run's model calls go to."""
        ...

    def tool(self, live: Tool) -> Tool:
        """Return what a run's tool calls go to."""
        ...

    @property
    def faults(self) -> FaultPlan | None:
        """What goes wrong on purpose, if anything does."""
        ...

    def delay_ms(self, effect: StartTimer) -> int:
        """Return how long a timer waits."""

    async def check_output(self, effect: CheckOutput, live: FindOutputFault) -> OutputChecked:
        """Return whether an answer fits the run's output schema; ``live`` evaluates it now."""
        ...


class LiveGate:
    """Lets every input pass at once, stamped with the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def admit(self, item: Input) -> Sequence[Admitted]:
        """Stamp an input with the time and let it pass."""
        return (Admitted(Stamp(self._clock.now(), self._clock.mono_ns()), item),)


class LiveSeams:
    """The world as it is.  ``policy`` says for each tool whether it may run; what it does not name may."""

    def __init__(self, clock: Clock, policy: Mapping[str, Literal["allow", "deny"]]) -> None:
        self._clock = clock
        self._policy = policy

    def spec(self, spec: RunSpec) -> RunSpec:
        """Return the spec itself."""
        return spec

    def gate(self, run_id: str) -> InputGate:
        """Return a gate that stamps inputs."""
        return LiveGate(self._clock)

    def entries(self, log: EntryLog) -> EntryLog:
        """Return the log itself."""
        return log

    def allows(self, effect: AskPolicy) -> tuple[bool, str | None]:
        """Ask the policy of the settings."""
        if self._policy.get(effect.tool_name) == "deny":
            return False, f"the policy denies the tool {effect.tool_name}"
        return True, None

    def extensions(self, live: Extensions) -> Extensions:
        """Return the extensions themselves."""
        return live

    def provider(self, live: Provider) -> Provider:
        """Return the provider itself."""
        return live

    def tool(self, live: Tool) -> Tool:
        """Return the tool itself."""
        return live

    @property
    def faults(self) -> FaultPlan | None:
        """None are planned."""
        return None

    def delay_ms(self, effect: StartTimer) -> int:
        """Return the delay that was asked for."""
        return effect.after_ms

    async def check_output(self, effect: CheckOutput, live: FindOutputFault) -> OutputChecked:
        """Check the answer."""
        return OutputChecked(effect.entry_id, await live(effect.text))
