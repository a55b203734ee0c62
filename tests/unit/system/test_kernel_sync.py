"""Syncing by the kernel: what was handed over ends, each once, with its error."""

from __future__ import annotations

import errno
import os
import platform
import select
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nous.system.kernel_sync import CAPACITY, KernelSync

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"},
    reason="asynchronous syncs are Linux's, on machines whose system calls are known",
)


@pytest.fixture
def kernel() -> Iterator[KernelSync]:
    made = KernelSync()
    yield made
    made.close()
    made.close()


def collect(kernel: KernelSync, count: int) -> dict[int, int]:
    found: list[tuple[int, int]] = []
    poll = select.poll()
    poll.register(kernel.fd, select.POLLIN)
    while len(found) < count:
        assert poll.poll(20_000), found
        found += kernel.collect()
    assert len(found) == len(dict(found)) == count
    return dict(found)


def test_files_and_directories_are_synced_and_may_be_closed_at_once(kernel: KernelSync, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"text")
    fds = [os.open(tmp_path / "f", os.O_WRONLY), os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)]
    assert kernel.submit([(fds[0], True), (fds[1], False)], 7) == 2
    for fd in fds:
        os.close(fd)
    assert collect(kernel, 2) == {7: 0, 8: 0}
    assert kernel.collect() == []


def test_what_has_nothing_to_sync_is_not_taken_or_ends_in_its_error(kernel: KernelSync) -> None:
    reader, writer = os.pipe()
    taken = kernel.submit([(writer, True)], 1)
    assert taken == 0 or collect(kernel, 1) == {1: errno.EINVAL}
    os.close(reader)
    os.close(writer)


def test_no_more_is_taken_than_it_can_hold_and_all_of_that_ends(kernel: KernelSync, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"text")
    fd = os.open(tmp_path / "f", os.O_WRONLY)
    assert kernel.submit([(fd, True)] * (CAPACITY + 5), 0) == CAPACITY
    assert kernel.submit([(fd, True)], CAPACITY) == 0
    assert collect(kernel, CAPACITY) == dict.fromkeys(range(CAPACITY), 0)
    assert kernel.submit([(fd, True)], 1000) == 1
    assert collect(kernel, 1) == {1000: 0}
    os.close(fd)


def test_a_descriptor_that_is_none_is_not_taken(kernel: KernelSync) -> None:
    assert kernel.submit([(1_000_000, True)], 1) == 0


def test_a_machine_whose_system_calls_are_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    with pytest.raises(OSError, match="not implemented"):
        KernelSync()
