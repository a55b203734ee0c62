"""What is too old goes whole; what lives, or is about to be used, stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.store.disk import Disk
from nous.store.leases import LEASES_NAME, USES, Leases, Use
from nous.store.locks import STANDARD, try_lock, unlock
from nous.store.retention import DAY_SECONDS, Collector, Keep, Kind, Unit, remove_tree
from nous.store.sessions import SessionStore
from nous.store.trace_file import TraceWriter
from nous.store.trace_lines import TraceCounts, TraceEnd
from tests.unit.store.helpers import LATER, NOW, append_row, header_line

pytestmark = pytest.mark.anyio

PRESENT = 1_900_000_000.0
ALL: dict[Kind, Keep] = {"session": Keep(), "trace": Keep(), "output": Keep()}
END = TraceEnd(status="completed", ended_at=LATER, counts=TraceCounts(inputs=0, events=0, effects=0))


class State:
    """A state directory whose things are as old as a test says."""

    def __init__(self, root: Path) -> None:
        self.sessions, self.traces, self.outputs = (root / name for name in ("sessions", "traces", "outputs"))
        for place in (self.sessions, self.traces, self.outputs):
            place.mkdir()
        self.collector = Collector(
            sessions=self.sessions,
            traces=self.traces,
            outputs=self.outputs,
            is_dead=lambda epoch: epoch != "alive",
            now=PRESENT,
        )

    def session(self, name: str, days: float) -> Path:
        append_row(SessionStore(self.sessions).create(name, NOW), [f"{name}-1"])
        return age(self.sessions / f"{name}.ndjson", days)

    def trace(self, name: str, days: float, *, epoch: str = "dead", ended: bool = True) -> Path:
        writer = TraceWriter.create(self.traces, name)
        writer.append(header_line(name, epoch).replace(b'"s1"', f'"of-{name}"'.encode()))
        if ended:
            writer.close(END)
        else:
            writer.release()
        return age(self.traces / f"{name}.ndjson", days)

    def output(self, run_id: str, days: float) -> Path:
        directory = self.outputs / run_id
        directory.mkdir()
        (directory / "call.txt").write_text("x" * 100, encoding="utf-8")
        age(directory / "call.txt", days)
        return age(directory, days)

    def collect(self, **keep: Keep) -> list[str]:
        """Remove what goes under these rules; return the names, oldest first."""
        rules = {kind: keep.get(kind, rule) for kind, rule in ALL.items()}
        return [unit.name for unit in self.collector.plan(rules).remove if self.collector.remove(unit)]


def age(path: Path, days: float) -> Path:
    os.utime(path, (PRESENT - days * DAY_SECONDS,) * 2)
    return path


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


async def test_without_rules_everything_stays(state: State) -> None:
    paths = [state.session("s1", 900), state.trace("r1", 900), state.output("r1", 900)]
    assert state.collect() == []
    assert all(path.exists() for path in paths)


async def test_what_is_older_than_its_days_goes_and_nothing_else(state: State) -> None:
    old = [state.session("s1", 31), state.trace("r1", 32), state.output("r1", 33)]
    new = [state.session("s2", 29), state.trace("r2", 29), state.output("r2", 29)]
    month = Keep(days=30)
    assert state.collect(session=month, trace=month, output=month) == ["r1", "r1", "s1"]
    assert [path.exists() for path in old] == [False] * 3
    assert [path.exists() for path in new] == [True] * 3


async def test_only_so_many_stay_and_those_are_the_newest(state: State) -> None:
    for number in range(5):
        state.trace(f"r{number}", 10 + number)
    assert state.collect(trace=Keep(count=2)) == ["r4", "r3", "r2"]
    assert sorted(path.stem for path in state.traces.iterdir()) == ["r0", "r1"]


async def test_what_was_just_changed_stays_whatever_the_rules(state: State) -> None:
    path = state.session("s1", 0.01)
    assert state.collect(session=Keep(days=1, count=1)) == []
    assert state.collect(session=Keep(count=0)) == []
    assert path.exists()


async def test_a_run_that_goes_on_keeps_its_trace_its_outputs_and_its_session(state: State) -> None:
    session_id = "session-1"
    state.session(session_id, 50)
    state.trace("r1", 50, epoch="alive", ended=False)
    state.output("r1", 50)
    gone = state.trace("r2", 50, ended=False)
    header = (state.traces / "r1.ndjson").read_bytes()
    day = Keep(days=1)
    removed = state.collect(session=day, trace=day, output=day)
    assert "r1" not in removed
    assert not gone.exists()
    assert (state.sessions / f"{session_id}.ndjson").exists() == (f'"{session_id}"'.encode() in header)


async def test_a_session_somebody_writes_stays(state: State) -> None:
    path = state.session("s1", 50)
    disk = Disk()
    lock = try_lock(disk, str(path.with_suffix(".lock")))
    assert lock is not None
    assert state.collect(session=Keep(days=1)) == []
    unlock(disk, lock)
    assert state.collect(session=Keep(days=1)) == ["s1"]
    # The lock is never removed, and the name can be used again.
    assert [found.name for found in state.sessions.iterdir() if found.is_file()] == ["s1.lock"]
    assert list((state.sessions / LEASES_NAME).iterdir()) == []
    SessionStore(state.sessions).create("s1", NOW)


async def test_what_has_changed_since_it_was_planned_stays(state: State) -> None:
    path, trace = state.session("s1", 50), state.trace("r1", 50)
    plan = state.collector.plan({**ALL, "session": Keep(days=1), "trace": Keep(days=1)})
    assert len(plan.remove) == 2
    age(path, 2)
    age(trace, 2)
    assert [state.collector.remove(unit) for unit in plan.remove] == [False, False]
    assert path.exists()
    assert trace.exists()


async def test_torn_tails_go_with_their_log(state: State) -> None:
    path = state.session("s1", 50)
    torn = path.with_name("s1.ndjson.torn-1")
    torn.write_bytes(b"x" * 7)
    (unit,) = state.collector.plan({**ALL, "session": Keep(days=1)}).remove
    assert unit.size_bytes == path.stat().st_size + 7
    assert state.collector.remove(unit)
    assert not torn.exists()


def test_a_place_that_is_not_there_is_empty(tmp_path: Path) -> None:
    nowhere = Collector(
        sessions=tmp_path / "a", traces=tmp_path / "b", outputs=tmp_path / "c", is_dead=lambda epoch: True, now=PRESENT
    )
    plan = nowhere.plan({kind: Keep(days=1, count=1) for kind in ALL})
    assert (plan.remove, plan.kept) == ([], {"session": 0, "trace": 0, "output": 0})


@given(
    ages=st.lists(st.floats(0, 100), max_size=12),
    days=st.none() | st.integers(1, 60),
    count=st.none() | st.integers(1, 8),
)
def test_both_rules_hold_together(
    ages: list[float], days: int | None, count: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = State(tmp_path_factory.mktemp("state"))
    for number, days_old in enumerate(ages):
        state.output(f"r{number}", days_old)
    plan = state.collector.plan({**ALL, "output": Keep(days=days, count=count)})
    going = {unit.name for unit in plan.remove}
    newest_first = sorted(range(len(ages)), key=lambda n: (_changed(state, n), f"r{n}"), reverse=True)
    for position, number in enumerate(newest_first):
        age_seconds = PRESENT - _changed(state, number)
        is_due = (days is not None and age_seconds > days * DAY_SECONDS) or (count is not None and position >= count)
        assert (f"r{number}" in going) == (is_due and age_seconds >= 3600)
    assert plan.kept["output"] == len(ages) - len(going)
    assert [unit.changed_at for unit in plan.remove] == sorted(unit.changed_at for unit in plan.remove)
    assert all(isinstance(unit, Unit) for unit in plan.remove)


def _changed(state: State, number: int) -> float:
    directory = state.outputs / f"r{number}"
    return max(directory.stat().st_mtime, (directory / "call.txt").stat().st_mtime)


# -- who uses a session keeps it


def trace_of(state: State, run_id: str, session_id: str, context: str) -> Path:
    """Write an old, closed trace whose context stands in its session (``referenced``) or in itself."""
    writer = TraceWriter.create(state.traces, run_id)
    capture = f',"capture":{{"context":"{context}"}}}}\n'.encode()
    writer.append(header_line(run_id, "dead").replace(b'"s1"', f'"{session_id}"'.encode()).replace(b"}\n", capture))
    writer.close(END)
    return age(state.traces / f"{run_id}.ndjson", 50)


async def test_a_session_that_a_kept_trace_needs_stays(state: State) -> None:
    needed, embedded = state.session("a", 50), state.session("b", 50)
    trace = trace_of(state, "r1", "a", "referenced")
    trace_of(state, "r2", "b", "recorded")
    assert state.collect(session=Keep(days=1)) == ["b"]
    assert (needed.exists(), embedded.exists()) == (True, False)
    assert sorted(state.collect(session=Keep(days=1), trace=Keep(days=1))) == ["a", "r1", "r2"]
    assert not trace.exists()


@pytest.mark.parametrize("use", USES)
async def test_a_session_in_use_stays_until_its_user_is_done(state: State, use: Use) -> None:
    path = state.session("a", 50)
    lease = await Leases(state.sessions).hold("a", use, STANDARD)
    assert state.collect(session=Keep(days=1)) == []
    lease.release()
    assert state.collect(session=Keep(days=1)) == ["a"]
    assert not path.exists()


async def test_a_session_that_is_used_after_it_was_planned_stays(state: State) -> None:
    state.session("a", 50)
    rules = {**ALL, "session": Keep(days=1)}
    [unit] = state.collector.plan(rules).remove
    lease = await Leases(state.sessions).hold("a", "active", STANDARD)
    assert not state.collector.remove(unit)
    lease.release()
    assert state.collector.remove(unit)


async def test_what_stays_only_for_its_age_is_counted(state: State) -> None:
    state.session("a", 0.01)
    state.session("b", 0.02)
    plan = state.collector.plan({**ALL, "session": Keep(count=1)})
    assert (plan.remove, plan.recent) == ([], 1)


async def test_outputs_nested_however_deep_are_measured_and_removed(state: State) -> None:
    top = state.output("r1", 50)
    fd = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    remove_tree(top)
    assert not top.exists()
    top.mkdir()
    deep = top
    for _ in range(1500):
        deep = deep / "d"
        deep.mkdir()
    for path in (deep, top / "d", top):
        age(path, 50)
    assert state.collector.plan(ALL).kept["output"] == 1
    remove_tree(top)  # pytest could not
