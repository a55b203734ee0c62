"""Writing a run's trace: ``<traces>/<run_id>.ndjson``, append only, created exclusively.

What the lines say is for others; here a trace is bytes, their digest, and a last line that seals them:

    {"type":"trace.end", <fields of whoever closes it>, "sha256":"<over every byte of the file before this value>"}

Source: docs/runtime-trace.md, "The file".
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from nous.errors import NousError
from nous.store.disk import Disk, io_failure, write_all
from nous.store.sync_job import SyncJob, finish
from nous.store.trace_lines import MAX_TRACE_LINE_BYTES, TraceEnd, end_line_head


class TraceWriter:
    """Appends to the trace of one run.

    Belongs to one thread, but for :meth:`sync`, which any thread may call.  After a failed write or sync the trace
    stays as it is, cut: every later call raises the same error, and a later daemon closes it as interrupted.
    """

    def __init__(self, path: str, fd: int, disk: Disk) -> None:
        self.offset = 0
        """How many bytes were written: where a reader that wants all of this and no more stops."""
        self.path = path
        self._fd = fd
        self._disk = disk
        self._digest = sha256()
        self._failure: NousError | None = None
        self._is_listed = False
        self._closing = threading.Lock()

    @classmethod
    def create(cls, directory: Path, run_id: str, *, disk: Disk | None = None) -> TraceWriter:
        """Create the trace of a new run.

        A shared flock marks the file as being written until it is closed: a trace that was cut within its header names
        no epoch, so the lock is all that tells whether its writer lives (:mod:`nous.store.trace_repair`).

        Raises:
            NousError: ``io_failure``, also if there is a trace of that run already.  No file and no descriptor is left.
        """
        disk = disk or Disk()
        path = str(directory / f"{run_id}.ndjson")
        try:
            fd = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        except OSError as error:
            raise io_failure(error, path) from error
        writer = cls(path, fd, disk)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            writer.discard()
            raise io_failure(error, path) from error
        return writer

    def append(self, data: bytes) -> None:
        """Append whole lines.  When this returns they survive the death of the process.

        Raises:
            NousError: ``io_failure``; also for a line that is longer than any reader takes: nothing is written then.
        """
        if self._failure is not None:
            raise self._failure
        if len(data) > MAX_TRACE_LINE_BYTES:
            self._check_lines(data)
        try:
            write_all(self._disk, self._fd, data)
        except OSError as error:
            raise self._fail(error) from error
        self._digest.update(data)
        self.offset += len(data)

    def _check_lines(self, data: bytes) -> None:
        longest = max(map(len, data.split(b"\n")))
        if longest > MAX_TRACE_LINE_BYTES:
            name = os.path.basename(self.path)  # noqa: PTH119 (text here)
            cause = f"{name}: a line of {longest} bytes is longer than a trace may hold ({MAX_TRACE_LINE_BYTES})"
            raise NousError("io_failure", cause, hint="Send shorter texts.")

    def sync(self) -> None:
        """Return once everything appended before the call would survive a power cut.  Blocks.

        Raises:
            NousError: ``io_failure``.
        """
        finish(self.begin_sync())

    def begin_sync(self) -> SyncJob:
        """Return what makes durable everything appended so far.  Fails, here or when it is settled, as :meth:`sync`."""
        if self._failure is not None:
            raise self._failure
        directory = None if self._is_listed else os.path.dirname(self.path) or "."  # noqa: PTH120 (text here)
        try:
            # A copy of the descriptor, so that closing the trace meanwhile cannot hand its number to another file.
            with self._closing:
                fd = os.dup(self._fd)
        except OSError as error:
            raise self._fail(error) from error
        return SyncJob(self._disk, fd, directory, self._settle_sync)

    def write_end(self, end: TraceEnd) -> None:
        """Append the ``trace.end`` line.  Not yet synced."""
        head = end_line_head(end)
        digest = self._digest.copy()
        digest.update(head)
        self.append(head + digest.hexdigest().encode() + b'"}\n')

    def release(self) -> None:
        """Close the file as it is; what follows a :meth:`write_end`, or leaves the trace cut.  May be repeated."""
        with self._closing:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)

    def discard(self) -> None:
        """Close the file and remove it: the trace of a run that was refused, of which nothing was published."""
        with suppress(OSError):
            os.unlink(self.path)  # noqa: PTH108 (paths are text here)
        with suppress(OSError):
            self.release()

    def close(self, end: TraceEnd) -> None:
        """Write the end, sync, and close the file, which is closed also if that fails.  Blocks.

        Raises:
            NousError: ``io_failure``.
        """
        try:
            self.write_end(end)
            self.sync()
        finally:
            self.release()

    def _settle_sync(self, error: OSError | None) -> None:
        if error is not None:
            raise self._fail(error) from error
        self._is_listed = True

    def _fail(self, error: OSError) -> NousError:
        self._failure = io_failure(error, self.path)
        return self._failure
