from __future__ import annotations

import errno
import os
from contextlib import closing, suppress
from pathlib import Path

import pytest

from nous.store.disk import write_all
from nous.store.faults import FaultyDisk, until_none_fires


def write_three(disk: FaultyDisk, path: Path) -> list[str]:
    """Write three files' worth and sync; return the names of the steps that failed."""
    failed = []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        for number in range(3):
            try:
                write_all(disk, fd, b"12345678")
            except OSError:
                failed.append(f"write{number}")
        try:
            disk.sync(fd)
        except OSError:
            failed.append("sync")
    finally:
        os.close(fd)
    return failed


@pytest.mark.parametrize(
    ("at", "stays", "failed"),
    [
        (1, False, ["write0"]),
        (3, False, ["write2"]),
        (4, False, ["sync"]),
        (2, True, ["write1", "write2", "sync"]),
        (5, False, []),
    ],
)
def test_the_nth_call_fails(tmp_path: Path, at: int, stays: bool, failed: list[str]) -> None:
    disk = FaultyDisk(at, stays=stays)
    assert write_three(disk, tmp_path / "f") == failed
    assert disk.fired == bool(failed)


def test_a_full_disk_takes_half_first(tmp_path: Path) -> None:
    disk = FaultyDisk(2, errno.ENOSPC, frozenset({"write"}))
    assert write_three(disk, tmp_path / "f") == ["write1"]
    assert (tmp_path / "f").read_bytes() == b"12345678123412345678"


def test_only_named_operations_fail(tmp_path: Path) -> None:
    assert write_three(FaultyDisk(1, errno.EIO, frozenset({"sync"})), tmp_path / "f") == ["sync"]


def test_every_operation_can_fail(tmp_path: Path) -> None:
    (tmp_path / "f").touch()

    def each(disk: FaultyDisk) -> None:
        fd = os.open(tmp_path / "f", os.O_RDWR)
        with closing(os.fdopen(fd)), suppress(OSError):
            disk.close(disk.open(str(tmp_path / "f"), os.O_RDONLY))
            disk.write(fd, b"1")
            disk.truncate(fd, 0)
            disk.sync(fd)
            disk.sync_directory(str(tmp_path))

    assert until_none_fires(each, errno.EIO) == 5
