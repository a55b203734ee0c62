from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.store.disk import Disk, io_failure, write_all


class SipDisk(Disk):
    """Takes a few bytes at a time, as the system may."""

    def __init__(self, sips: list[int]) -> None:
        self.sips = sips
        self.taken: list[bytes] = []

    def write(self, fd: int, data: bytes | memoryview) -> int:
        sip = self.sips.pop(0) if self.sips else len(data)
        self.taken.append(bytes(data[:sip]))
        return min(sip, len(data))


def test_files_are_private_and_not_inherited(tmp_path: Path) -> None:
    disk = Disk()
    fd = disk.open(str(tmp_path / "f"), os.O_WRONLY | os.O_CREAT)
    try:
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
        assert not os.get_inheritable(fd)
    finally:
        disk.close(fd)


def test_syncs_files_and_directories(tmp_path: Path) -> None:
    disk = Disk()
    fd = disk.open(str(tmp_path / "f"), os.O_WRONLY | os.O_CREAT)
    disk.write(fd, b"12345")
    disk.sync(fd)
    disk.truncate(fd, 3)
    disk.close(fd)
    disk.sync_directory(str(tmp_path))
    assert (tmp_path / "f").read_bytes() == b"123"
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk.sync(fd)
    with pytest.raises(FileNotFoundError):
        disk.sync_directory(str(tmp_path / "no"))


@given(st.binary(max_size=40), st.lists(st.integers(1, 9), max_size=9))
def test_short_writes_are_continued(data: bytes, sips: list[int]) -> None:
    disk = SipDisk(sips)
    write_all(disk, -1, data)
    assert b"".join(disk.taken) == data


def test_what_fits_is_one_write() -> None:
    disk = SipDisk([])
    write_all(disk, -1, b"whole")
    assert disk.taken == [b"whole"]


def test_io_failure_names_the_file_and_the_reason_only() -> None:
    error = io_failure(
        OSError(errno.ENOSPC, "No space left on device", "/secret/place/s1.ndjson"), "/secret/place/s1.ndjson"
    )
    assert (error.code, error.cause) == ("io_failure", "s1.ndjson: No space left on device")
    assert io_failure(OSError(), "a").cause == "a: OSError"
