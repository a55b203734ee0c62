"""What the daemon knows by itself: which run ended a moment ago, which tools there are, who may start a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nous.errors import NousError
from nous.runtime.daemon import Daemon
from nous.transport.memory import memory_pair
from tests.support.harness import make_server
from tests.support.home import Home, Setup


class Watch:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.ns = 0

    def now(self) -> str:
        return "2026-11-21T10:00:00.000Z"

    def mono_ns(self) -> int:
        return self.ns


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with make_server(Home(tmp_path), Setup(), memory_pair()[1]) as (daemon, _):
        yield daemon


def test_tools_are_named_once_each_and_in_order(daemon: Daemon) -> None:
    assert daemon.toolbox.check(["ls", "read", "ls"]) == ("ls", "read")
    with pytest.raises(NousError) as caught:
        daemon.toolbox.check(["read", "x" * 5000])
    assert caught.value.code == "command_rejected"
    assert len(caught.value.cause or "") < 200


@pytest.mark.parametrize("run_id", ["", "..", "../traces/x", "x" * 129, "nobody"])
def test_a_run_nobody_knows(daemon: Daemon, run_id: str) -> None:
    assert not daemon.knows_run(run_id)
    with pytest.raises(NousError) as caught:
        daemon.find_run(run_id)
    assert caught.value.code == "run_not_found"


def test_a_daemon_that_ends_starts_no_run(daemon: Daemon) -> None:
    daemon.accepting = False
    with pytest.raises(NousError) as caught:
        daemon.find_run(None)
    assert (caught.value.code, caught.value.cause) == ("command_rejected", "no_active_run")


def test_the_ids_of_its_own_events_count_on(daemon: Daemon) -> None:
    lines = [daemon.event_line(daemon.ready()) for _ in range(3)]
    assert [line.split(b'"id":"')[1].split(b'"')[0] for line in lines] == [b"evt-1", b"evt-2", b"evt-3"]
