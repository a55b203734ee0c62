"""Replacing a file: the old content or the new one, whatever happens; modes; what is left behind."""

from __future__ import annotations

import os
import resource
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nous.system.atomic import TEMP_PREFIX, TEMP_SUFFIX, replace_file, replace_file_at, write_all
from tests.unit.system.processes import DEADLINE_S, python


@pytest.fixture
def umask_022() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_makes_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    replace_file(tmp_path / "new", b"content")
    assert (tmp_path / "new").read_bytes() == b"content"
    assert mode_of(tmp_path / "new") == 0o600
    assert names_in(tmp_path) == ["new"]


def test_replaces_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o644)
    replace_file(path, b"new", mode=0o640)
    assert path.read_bytes() == b"new"
    assert mode_of(path) == 0o640


def test_the_mode_is_exact_whatever_the_umask(tmp_path: Path, umask_022: None) -> None:
    replace_file(tmp_path / "file", b"", mode=0o666)
    assert mode_of(tmp_path / "file") == 0o666


def test_without_a_mode_the_umask_decides(tmp_path: Path, umask_022: None) -> None:
    replace_file(tmp_path / "file", b"", mode=None)
    assert mode_of(tmp_path / "file") == 0o644


def test_a_link_is_replaced_and_its_target_untouched(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "link").symlink_to("target")
    replace_file(tmp_path / "link", b"new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"target"


def test_a_refusal_before_the_rename_leaves_the_old_file_and_no_temp(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def refuse() -> None:
        assert len(names_in(tmp_path)) == 2
        raise KeyError("changed my mind")

    directory_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(KeyError):
            replace_file_at(directory_fd, "file", b"new", before_rename=refuse)
    finally:
        os.close(directory_fd)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_a_disk_that_takes_no_more_leaves_the_old_file_and_no_temp(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            replace_file(path, b"x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "nowhere" / "file", b"")


def test_a_kill_before_the_rename_leaves_the_old_file_and_a_temp_that_names_its_tag(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    program = """
import os, signal, sys
from nous.system.atomic import replace_file_at
fd = os.open(sys.argv[1], os.O_RDONLY)
replace_file_at(fd, "file", b"new", tag="epoch7", before_rename=lambda: os.kill(os.getpid(), signal.SIGKILL))
"""
    with python(program, str(tmp_path)) as killed:
        assert killed.wait(DEADLINE_S) == -signal.SIGKILL
    assert (tmp_path / "file").read_bytes() == b"old"
    (left,) = set(names_in(tmp_path)) - {"file"}
    assert left.startswith(f"{TEMP_PREFIX}epoch7-")
    assert left.endswith(TEMP_SUFFIX)


def test_the_content_is_synced_before_the_rename_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        log.append("fsync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        real_fsync(fd)

    def rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        log.append("rename")
        real_rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    replace_file(tmp_path / "file", b"content")
    assert log == ["fsync file", "rename", "fsync directory"]


def test_a_reader_sees_one_content_or_the_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = {bytes([letter]) * 300_000 for letter in b"ab"}
    replace_file(path, min(contents))
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        replace_file(path, sorted(contents)[number % 2])
    stop.set()
    reader.join()
    assert seen <= contents


def test_write_all_goes_on_after_a_short_write() -> None:
    reading, writing = os.pipe()
    data = os.urandom(1_000_000)
    received: list[bytes] = []

    def read() -> None:
        while chunk := os.read(reading, 1000):
            received.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    write_all(writing, data)
    os.close(writing)
    reader.join()
    os.close(reading)
    assert b"".join(received) == data
