"""Writing other people's files: what they are stays, also where they cannot be replaced."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nous.system import content
from nous.system.content import write_content

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def write(fd: int, name: str, data: bytes, before_change: Callable[[], None] = lambda: None) -> None:
    target = os.stat(name, dir_fd=fd) if name in os.listdir(fd) else None
    write_content(fd, name, data, target, before_change)


@pytest.mark.parametrize("data", [b"", b"short", b"long" * 100_000])
def test_a_file_with_several_names_keeps_them(tmp_path: Path, fd: int, data: bytes) -> None:
    (tmp_path / "a").write_bytes(b"old content")
    (tmp_path / "a").chmod(0o741)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    write(fd, "a", data)
    assert (tmp_path / "b").read_bytes() == data
    assert (tmp_path / "a").samefile(tmp_path / "b")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o741


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="Python has no extended attributes here")
def test_extended_attributes_stay(tmp_path: Path, fd: int) -> None:
    (tmp_path / "a").write_bytes(b"old")
    try:
        os.setxattr(tmp_path / "a", "user.note", b"kept")
    except OSError:
        pytest.skip("no extended attributes on this file system")
    inode = (tmp_path / "a").stat().st_ino
    write(fd, "a", b"new")
    assert os.getxattr(tmp_path / "a", "user.note") == b"kept"
    assert (tmp_path / "a").stat().st_ino != inode


@needs_root
def test_the_owner_is_kept(tmp_path: Path, fd: int) -> None:
    (tmp_path / "file").write_bytes(b"old")
    os.chown(tmp_path / "file", 12345, 23456)
    write(fd, "file", b"new")
    assert ((tmp_path / "file").stat().st_uid, (tmp_path / "file").stat().st_gid) == (12345, 23456)


@needs_root
def test_a_file_that_is_mounted_by_itself_is_written_in_place(tmp_path: Path, fd: int) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "mounted").touch()
    mount = subprocess.run(["mount", "--bind", tmp_path / "real", tmp_path / "mounted"], check=False, timeout=20)
    if mount.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        write(fd, "mounted", b"new")
        assert (tmp_path / "real").read_bytes() == b"new"
    finally:
        subprocess.run(["umount", tmp_path / "mounted"], check=True, timeout=20)
    assert sorted(os.listdir(tmp_path)) == ["mounted", "real"]  # noqa: PTH208


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EACCES, errno.EPERM])
def test_what_cannot_be_replaced_is_written_in_place(
    tmp_path: Path, fd: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    inode = (tmp_path / "a").stat().st_ino

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "rename", refuse)
    write(fd, "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_ino == inode
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208


@pytest.mark.parametrize("names", [1, 2])
def test_what_is_refused_at_the_last_moment_changes_nothing(tmp_path: Path, fd: int, names: int) -> None:
    (tmp_path / "a").write_bytes(b"old")
    if names == 2:
        (tmp_path / "b").hardlink_to(tmp_path / "a")

    def refuse() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(fd, "a", b"new", refuse)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == names  # noqa: PTH208


def test_a_full_disk_leaves_the_old_content(tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").hardlink_to(tmp_path / "a")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        write(fd, "a", b"longer than the old content")
    assert (tmp_path / "a").read_bytes() == b"old"


KILLED = """
import os, signal, sys
from nous.system.content import write_content
fd = os.open(sys.argv[1], os.O_RDONLY)
write_content(fd, "a", b"new" * 1000, None, lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path: Path, fd: int) -> None:
    for _ in range(3):
        killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=60)
        assert killed.returncode == -9
    # What the second and third left before them, they removed themselves.
    assert len([name for name in os.listdir(tmp_path) if name.startswith(".nous-file-")]) == 1  # noqa: PTH208
    content._swept.clear()
    write(fd, "b", b"new")
    assert os.listdir(tmp_path) == ["b"]  # noqa: PTH208


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path, fd: int) -> None:
    def look() -> None:
        content._swept.clear()
        content._sweep(fd)
        assert len(os.listdir(tmp_path)) == 1  # noqa: PTH208

    write(fd, "a", b"new", look)
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208
