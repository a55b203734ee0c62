"""Opening files that others may have made: never a wait, never more than the bound, no descriptor left open."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from nous.system.regular_file import UnsuitableFileError, open_regular_file, read_regular_file


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("fifo"))
    path.symlink_to("fifo")


UNSUITABLE: dict[str, Callable[[Path], object]] = {
    "directory": Path.mkdir,
    "fifo": os.mkfifo,
    "socket": make_socket,
    "link to a fifo": make_link_to_fifo,
    "link to a device without end": lambda path: path.symlink_to("/dev/zero"),
    "link to a terminal": lambda path: path.symlink_to("/dev/ptmx"),
}


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - pathlib cannot list it while it changes


@pytest.mark.parametrize("kind", UNSUITABLE)
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "f"
    UNSUITABLE[kind](path)
    before = open_descriptors()
    with pytest.raises(UnsuitableFileError) as caught:
        read_regular_file(path, 10)
    assert "not a regular file" in str(caught.value.strerror)
    assert caught.value.filename == str(path)
    assert open_descriptors() == before


def test_a_file_swapped_for_a_fifo_after_the_look_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.touch()
    real_open = os.open

    def swap_and_open(name: Path, flags: int, *, dir_fd: int | None = None) -> int:
        path.unlink()
        os.mkfifo(path)
        return real_open(name, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap_and_open)
    before = open_descriptors()
    with pytest.raises(UnsuitableFileError, match="not a regular file"):
        open_regular_file(path)
    assert open_descriptors() == before


def test_the_bound_is_exact_and_holds_for_sparse_files(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    assert read_regular_file(path, 5) == b"12345"
    with pytest.raises(UnsuitableFileError, match="longer than 4 bytes"):
        read_regular_file(path, 4)
    os.truncate(path, 1 << 40)
    with pytest.raises(UnsuitableFileError, match="longer than 5 bytes"):
        read_regular_file(path, 5)


def test_a_file_that_states_no_size_is_read(tmp_path: Path) -> None:
    assert b"Name:" in read_regular_file("/proc/self/status", 1 << 16)


def test_links_are_followed_or_not_as_asked(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "loop").symlink_to("loop")
    assert read_regular_file(tmp_path / "link", 1) == b"x"
    with pytest.raises(UnsuitableFileError, match="symbolic link"):
        read_regular_file(tmp_path / "link", 1, follow_links=False)
    for follow in (True, False):
        with pytest.raises(OSError, match="link"):
            read_regular_file(tmp_path / "loop", 1, follow_links=follow)


def test_a_missing_file_is_told_from_an_unsuitable_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular_file(tmp_path / "none", 1)


def test_a_path_may_be_relative_to_a_directory(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert read_regular_file("f", 1, dir_fd=directory) == b"x"
    finally:
        os.close(directory)


def test_the_descriptor_is_not_inherited(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    fd = open_regular_file(tmp_path / "f")
    try:
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
