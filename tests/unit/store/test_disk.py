from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.store.disk import Disk, io_failure, remove_quietly, replace_file, temp_path, write_all
from nous.store.faults import FaultyDisk, until_none_fires


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


class TestReplacing:
    def test_the_new_content_is_there_with_our_mode(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        path.write_bytes(b"old")
        path.chmod(0o644)
        replace_file(Disk(), str(path), b"new")
        assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
    def test_a_fault_leaves_the_old_or_the_new_and_no_temp_file(self, tmp_path: Path, code: int) -> None:
        path = tmp_path / "f"

        def attempt(disk: FaultyDisk) -> None:
            path.write_bytes(b"old")
            try:
                replace_file(disk, str(path), b"new content")
            except OSError:
                assert path.read_bytes() in (b"old", b"new content")
            else:
                assert path.read_bytes() == b"new content"
            assert list(tmp_path.iterdir()) == [path]

        assert until_none_fires(attempt, code) == 5

    @pytest.mark.parametrize(("path", "temp"), [("/a/b.ndjson", "/a/.b.ndjson.tmp"), ("/a/.b", "/a/.b.tmp")])
    def test_the_temp_file_is_hidden_beside_it(self, path: str, temp: str) -> None:
        assert temp_path(path) == temp

    def test_removing_what_is_not_there(self, tmp_path: Path) -> None:
        remove_quietly(str(tmp_path / "no"))
        (tmp_path / "f").touch()
        remove_quietly(str(tmp_path / "f"))
        assert list(tmp_path.iterdir()) == []
