"""Making a file durable in two halves: what belongs to the file's owner, and what waits for the disk.

The owner begins a job and settles it; in between somebody else syncs, who touches nothing that the owner knows: a
thread, by way of :meth:`SyncJob.run`, or the kernel, which takes descriptors.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from nous.store.disk import Disk


class SyncJob:
    """A file, open, whose bytes are to survive a power cut; with ``directory``, its name there too."""

    def __init__(
        self, disk: Disk, fd: int, directory: str | None, on_settled: Callable[[OSError | None], None]
    ) -> None:
        self._disk = disk
        self._fd = fd
        self._directory = directory
        self._directory_fd = -1
        self._on_settled = on_settled
        self._error: OSError | None = None

    def run(self) -> None:
        """Sync, and keep what went wrong for :meth:`settle`.  Blocks; for any thread, once."""
        try:
            self._disk.sync(self._fd)
            if self._directory is not None:
                self._disk.sync_directory(self._directory)
        except OSError as error:
            self._error = error
        except Exception as error:
            # A defect is no reason to call durable what may not be, nor to let anybody wait for ever.
            self._error = OSError(errno.EIO, type(error).__name__)

    def descriptors(self) -> list[tuple[int, bool]]:
        """Return what the kernel is to sync instead of :meth:`run`, each with whether only its data count.

        None where only :meth:`run` will do: on a disk that is not the real one.
        """
        if type(self._disk) is not Disk:
            return []
        found = [(self._fd, True)]
        if self._directory is not None:
            try:
                self._directory_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                return []
            found.append((self._directory_fd, False))
        return found

    def note(self, error: int) -> None:
        """Take down that a descriptor could not be synced, by the number of the error (0: it was)."""
        if error and self._error is None:
            self._error = OSError(error, os.strerror(error))

    def settle(self) -> None:
        """Close the file and tell its owner how it went, after all that was to be synced.

        Raises:
            NousError: ``io_failure``, where the file's owner says so: it is not durable.
        """
        try:
            self._disk.close(self._fd)
        except OSError as error:
            # Some file systems say only now that there was no room.
            self._error = self._error or error
        if self._directory_fd >= 0:
            os.close(self._directory_fd)
        self._on_settled(self._error)


def finish(job: SyncJob | None) -> None:
    """Run a job, if there is something to do, and settle it.  Blocks.  Raises as :meth:`SyncJob.settle`."""
    if job is not None:
        job.run()
        job.settle()
