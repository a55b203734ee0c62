from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nous.store.disk import Disk
from nous.store.faults import FaultyDisk, until_none_fires
from nous.store.lines import CHUNK_BYTES
from nous.store.torn import keep_torn_tail


def test_moves_the_tail_to_the_first_free_name(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"whole\n" + b"t" * (2 * CHUNK_BYTES + 3))
    (tmp_path / "log.torn-1").write_bytes(b"older")
    fd = os.open(path, os.O_RDWR)
    torn = keep_torn_tail(Disk(), fd, str(path), 6, path.stat().st_size)
    os.close(fd)
    assert (torn.path, torn.size) == (str(path) + ".torn-2", 2 * CHUNK_BYTES + 3)
    assert path.read_bytes() == b"whole\n"
    assert Path(torn.path).read_bytes() == b"t" * torn.size
    assert (tmp_path / "log.torn-1").read_bytes() == b"older"


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_fault_loses_nothing_and_leaves_no_half_copy(tmp_path: Path, code: int) -> None:
    path = tmp_path / "log"

    def attempt(disk: FaultyDisk) -> None:
        path.write_bytes(b"whole\ntorn")
        fd = os.open(path, os.O_RDWR)
        try:
            keep_torn_tail(disk, fd, str(path), 6, 10)
        except OSError:
            assert path.read_bytes() == b"whole\ntorn"
        else:
            assert path.read_bytes() == b"whole\n"
        finally:
            os.close(fd)
        kept = [copy.read_bytes() for copy in tmp_path.glob("log.torn-*")]
        assert kept in ([], [b"torn"])
        assert kept or path.read_bytes() == b"whole\ntorn"
        for copy in tmp_path.glob("log.torn-*"):
            copy.unlink()

    assert until_none_fires(attempt, code) == 5


def test_the_copy_has_a_durable_name_before_the_log_is_cut(tmp_path: Path) -> None:
    calls: list[str] = []

    class Watched(Disk):
        def sync_directory(self, path: str) -> None:
            calls.append(f"sync {path}")
            super().sync_directory(path)

        def truncate(self, fd: int, size: int) -> None:
            calls.append("truncate")
            super().truncate(fd, size)

    path = tmp_path / "log"
    path.write_bytes(b"whole\ntorn")
    fd = os.open(path, os.O_RDWR)
    keep_torn_tail(Watched(), fd, str(path), 6, 10)
    os.close(fd)
    assert calls == [f"sync {tmp_path}", "truncate"]
