"""The end of a log that was cut in the middle of a line: kept aside, never thrown away silently."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from nous.store.disk import Disk, write_all
from nous.store.lines import CHUNK_BYTES


class TornTail(Struct, frozen=True):
    """A tail that was cut: how long it was, and the file it was kept in."""

    path: str
    size: int


def keep_torn_tail(disk: Disk, fd: int, path: str, start: int, end: int) -> TornTail:
    """Move what lies between two offsets to ``<path>.torn-<n>``, the first free one, and cut the file there.

    The caller holds the log's lock.  The copy and its name are durable before the file is cut: a crash or a power cut
    in between leaves the tail twice, never nowhere.
    """
    kept_path, kept_fd = _create_free(disk, path)
    try:
        at = start
        while at < end and (chunk := disk.read_at(fd, min(CHUNK_BYTES, end - at), at)):
            write_all(disk, kept_fd, chunk)
            at += len(chunk)
        disk.sync(kept_fd)
        disk.sync_directory(os.path.dirname(path) or ".")  # noqa: PTH120 (paths are text here)
    except BaseException:
        with suppress(OSError):
            Path(kept_path).unlink()
        raise
    finally:
        disk.close(kept_fd)
    disk.truncate(fd, start)
    return TornTail(kept_path, end - start)


def _create_free(disk: Disk, path: str) -> tuple[str, int]:
    number = 1
    while True:
        kept_path = f"{path}.torn-{number}"
        try:
            return kept_path, disk.open(kept_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            number += 1
