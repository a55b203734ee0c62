"""Releases the inputs of a replayed run in recorded order: input n only after 1 to n-1 were stepped.

Sources (provider, tools, store, timers, clients) say *when* something has come up; *what* is stepped is what was
recorded, with its recorded stamp.  So a replay is driven through every real part of the daemon, and yet repeats itself.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from typing import Final

from nous.engine.inputs import (
    AbortRequested,
    CompactionPlanned,
    CompactionRefused,
    CompactionStarted,
    FollowedUp,
    FollowUpModeSet,
    Input,
    RunStarted,
    Steered,
    SteeringModeSet,
    TimerFired,
    ToolsSet,
)
from nous.errors import NousError
from nous.ports.system import Clock
from nous.runtime.seams import Admitted, LiveGate

BEGINNINGS: Final = (RunStarted, CompactionStarted)
"""What a run begins with."""

_COMMANDS: Final = (Steered, FollowedUp, AbortRequested, SteeringModeSet, FollowUpModeSet, ToolsSet)
_SUBJECTS: Final = ("call", "tool_call_id", "entry_id", "operation")


def is_command(item: Input) -> bool:
    """Whether an input comes from a client (or from the daemon in a client's stead)."""
    return isinstance(item, _COMMANDS)


def identity(item: Input) -> Hashable:
    """Return what makes an input that has come up the one that was recorded: its kind and whom it concerns."""
    about = subject(item)
    if about is not None:
        # What a plan comes to depends on the configuration; that it has come up is what matters.
        kind = CompactionPlanned if isinstance(item, CompactionRefused) else type(item)
        return kind, about
    return type(item) if isinstance(item, BEGINNINGS) else item


def subject(item: Input) -> tuple[str, object] | None:
    """Return what an input is the answer to: a model call, a tool call, an entry, a hook."""
    for name in _SUBJECTS:
        value = getattr(item, name, None)
        if value is not None:
            return name, value
    return None


class Sequencer:
    """The gate of one replayed run.

    ``comes_by_itself`` says which recorded inputs no source of this replay will bring: they enter in their turn.
    ``asked`` are the subjects of everything the recorded run asked for: further news of one of them came too late for
    the recorded run too, and is dropped.  When anything else comes up that was not recorded the replay has diverged;
    from then on everything passes as it comes, so that the run ends and the difference can be seen.
    """

    def __init__(
        self,
        expected: Iterable[Admitted],
        asked: Container[tuple[str, object]],
        comes_by_itself: Callable[[Input], bool],
        clock: Clock,
    ) -> None:
        self._asked = asked
        self._expected = deque(expected)
        self._remaining = Counter(identity(e.item) for e in self._expected)
        self._arrived: Counter[Hashable] = Counter()
        self._held: list[Input] = []
        self._comes_by_itself = comes_by_itself
        self._live = LiveGate(clock)
        self._diverged = False

    def admit(self, item: Input) -> Sequence[Admitted]:
        """See :class:`nous.runtime.seams.InputGate`.

        Raises ``command_rejected`` for a queued input that the recording does not have.
        """
        if self._diverged:
            return self._live.admit(item)
        key = identity(item)
        if not self._remaining[key]:
            return self._unexpected(item)
        self._arrived[key] += 1
        self._held.append(item)
        return self._release()

    def _release(self) -> list[Admitted]:
        out: list[Admitted] = []
        while self._expected:
            item = self._expected[0].item
            key = identity(item)
            if not self._comes_by_itself(item):
                if not self._arrived[key]:
                    break
                self._arrived[key] -= 1
                self._held.remove(next(i for i in self._held if identity(i) == key))
            self._remaining[key] -= 1
            out.append(self._expected.popleft())
        return out

    def _unexpected(self, item: Input) -> Sequence[Admitted]:
        if isinstance(item, TimerFired) or subject(item) in self._asked:
            return ()
        if isinstance(item, (Steered, FollowedUp)):
            raise NousError("command_rejected", "this run replays a recording")
        self._diverged = True
        held, self._held = self._held, []
        return [admitted for held_item in (*held, item) for admitted in self._live.admit(held_item)]
