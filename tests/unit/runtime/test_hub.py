"""The hub: every listener gets what it asked for; who is slow is waited for or let go."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nous.engine.emitter import EmittedEvent
from nous.protocol.events import MessageUpdate, ThinkingUpdate
from nous.runtime.hub import PACED_BOUND_BYTES, Hub, Listener
from nous.runtime.outbox import Outbox
from nous.transport.memory import MemoryEndpoint, memory_pair
from tests.support.home import bounded

pytestmark = pytest.mark.anyio

PLAIN = EmittedEvent(MessageUpdate, 1, None, b"plain\n")
THINKING = EmittedEvent(ThinkingUpdate, 1, "thinking", b"thinking\n")
LATER = EmittedEvent(MessageUpdate, 2, None, b"later\n")


class Heard:
    """A listener and the other end of its pipe."""

    def __init__(self, *features: str, paced: bool = False, bound_bytes: int = 1000, pid: int | None = None) -> None:
        self.end: MemoryEndpoint
        self.end, theirs = memory_pair(64)
        self.outbox = Outbox(theirs)
        self.overruns = 0
        self.listener = Listener(
            self.outbox, paced=paced, bound_bytes=bound_bytes, on_overrun=self._overrun, peer_pid=pid
        )
        self.listener.features = frozenset(features)

    def _overrun(self) -> None:
        self.overruns += 1

    async def so_far(self) -> bytes:
        self.outbox.put(b"|")
        data = b""
        while not data.endswith(b"|"):
            data += await self.end.receive()
        return data[:-1]


async def test_each_listener_gets_the_features_it_asked_for() -> None:
    hub, plain, thinking = Hub(), Heard(), Heard("thinking")
    for heard in (plain, thinking):
        hub.add(heard.listener)
        hub.add(heard.listener)
    hub.publish("r", [PLAIN, THINKING, LATER])
    assert await plain.so_far() == b"plain\nlater\n"
    assert await thinking.so_far() == b"plain\nthinking\nlater\n"


async def test_who_left_hears_nothing_more() -> None:
    hub, heard = Hub(), Heard()
    hub.add(heard.listener)
    hub.remove(heard.listener)
    hub.remove(heard.listener)
    hub.publish("r", [PLAIN])
    assert await heard.so_far() == b""


async def test_who_still_reads_a_run_from_disk_gets_only_the_others() -> None:
    hub, heard = Hub(), Heard()
    hub.add(heard.listener)
    heard.listener.catching.add("r")
    hub.publish("r", [PLAIN])
    hub.publish("other", [LATER])
    hub.announce(b"daemon\n")
    assert await heard.so_far() == b"later\ndaemon\n"


async def test_a_listener_past_its_bound_is_reported_and_the_others_are_not() -> None:
    hub, slow, paced = Hub(), Heard(bound_bytes=100), Heard(paced=True)
    hub.add(slow.listener)
    hub.add(paced.listener)
    overruns = []
    for _ in range(5):
        hub.publish("r", [EmittedEvent(MessageUpdate, 1, None, b"x" * 40)])
        overruns.append(slow.overruns)
    # 64 bytes are in the pipe: after four events 96 wait, after five 136.
    assert overruns == [0, 0, 0, 0, 1]
    assert paced.overruns == 0


async def test_runs_wait_for_a_paced_listener_that_lags() -> None:
    hub, heard = Hub(), Heard(paced=True)
    hub.add(heard.listener)
    congested = [hub.congested]
    await hub.room()
    hub.publish("r", [EmittedEvent(MessageUpdate, 1, None, b"x" * (PACED_BOUND_BYTES + 65))])
    congested.append(hub.congested)
    free = anyio.Event()

    async def wait() -> None:
        await hub.room()
        free.set()

    with bounded():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            tasks.start_soon(heard.outbox.run)
            for _ in range(10):
                await checkpoint()
            assert not free.is_set()
            taken = 0
            while taken < PACED_BOUND_BYTES + 65:
                taken += len(await heard.end.receive())
            await free.wait()
            heard.outbox.close()
    assert [*congested, hub.congested] == [False, True, False]


async def test_nobody_waits_for_a_paced_listener_that_is_gone() -> None:
    hub, heard = Hub(), Heard(paced=True)
    hub.add(heard.listener)
    hub.publish("r", [EmittedEvent(MessageUpdate, 1, None, b"x" * 2 * PACED_BOUND_BYTES)])
    heard.outbox.drop()
    with bounded():
        await hub.room()


async def test_which_processes_hear_everything() -> None:
    hub, live, catching, unknown = Hub(), Heard(pid=7), Heard(pid=8), Heard()
    for heard in (live, catching, unknown):
        hub.add(heard.listener)
    catching.listener.catching.add("r")
    assert hub.peer_pids() == {7}
