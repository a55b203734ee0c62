"""Syncing files without waiting for it: the kernel does it, and says so on a descriptor.  Linux only.

A thread that waits for a disk has to take turns with the event loop for the interpreter lock, several times per sync;
while the loop is busy that takes longer than the disk.  Linux's asynchronous I/O has had fsync and fdatasync since
4.18: one system call hands over any number of files, none of them needs a thread.  Source: io_submit(2),
linux/aio_abi.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence
from typing import Final

CAPACITY: Final = 128
"""So many syncs may be under way at once.  The system grants 65,536 in all (fs.aio-max-nr) unless told otherwise."""

_CALLS: Final = {
    "x86_64": {"io_setup": 206, "io_destroy": 207, "io_getevents": 208, "io_submit": 209},
    "aarch64": {"io_setup": 0, "io_destroy": 1, "io_submit": 2, "io_getevents": 4},
}
"""The numbers of the system calls, which the C library does not wrap."""

_FSYNC: Final = 2
_FDSYNC: Final = 3
_NOTIFY: Final = 1

# struct iocb of a little-endian machine: data, key, rw_flags, opcode, priority, fd, buf, nbytes, offset, reserved,
# flags, the descriptor to be told on.  struct io_event: data, the request's address, and two results.
_REQUEST: Final = struct.Struct("<QIIHhIQQqQII")
_EVENT: Final = struct.Struct("<QQqq")


class KernelSync:
    """Hands files over and says when they are durable.  ``fd`` is readable while there is something to collect."""

    def __init__(self) -> None:
        """Raises OSError where the system does not offer it."""
        calls = _CALLS.get(platform.machine())
        # A program of 32 bits has other numbers for the same calls, also where the machine has 64.
        if sys.platform != "linux" or sys.maxsize < 2**32 or calls is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self._calls = calls
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        self._context = ctypes.c_ulong(0)
        self._requests = ctypes.create_string_buffer(_REQUEST.size * CAPACITY)
        start = ctypes.addressof(self._requests)
        self._pointers = (ctypes.c_void_p * CAPACITY)(*(start + _REQUEST.size * n for n in range(CAPACITY)))
        self._events = ctypes.create_string_buffer(_EVENT.size * CAPACITY)
        self._under_way = 0
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        if self._call(calls["io_setup"], ctypes.c_uint(CAPACITY), ctypes.byref(self._context)) < 0:
            error = ctypes.get_errno()
            os.close(self.fd)
            raise OSError(error, os.strerror(error))

    def submit(self, files: Sequence[tuple[int, bool]], first_ticket: int) -> int:
        """Hand over descriptors, each with whether only its data (and size) count; return how many were taken.

        Those are numbered from ``first_ticket``; a descriptor may be closed once it was taken.  What is not taken (too
        many at once, a file system that cannot) has to be synced another way.
        """
        count = min(len(files), CAPACITY - self._under_way)
        for n, (fd, data_only) in enumerate(files[:count]):
            opcode = _FDSYNC if data_only else _FSYNC
            ticket = first_ticket + n
            _REQUEST.pack_into(
                self._requests, _REQUEST.size * n, ticket, 0, 0, opcode, 0, fd, 0, 0, 0, 0, _NOTIFY, self.fd
            )
        if not count:
            return 0
        taken = self._call(self._calls["io_submit"], self._context, ctypes.c_long(count), self._pointers)
        taken = max(taken, 0)
        self._under_way += taken
        return int(taken)

    def collect(self) -> list[tuple[int, int]]:
        """Return what has ended since the last time: tickets, each with the number of its error (0: durable)."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        count = self._call(
            self._calls["io_getevents"],
            self._context,
            ctypes.c_long(0),
            ctypes.c_long(CAPACITY),
            self._events,
            None,
        )
        self._under_way -= max(count, 0)
        ended = (_EVENT.unpack_from(self._events, _EVENT.size * n) for n in range(count))
        return [(ticket, max(0, -result)) for ticket, _, result, _ in ended]

    def close(self) -> None:
        """Give everything back, at once: what is under way goes on, and the kernel cleans up when the process ends."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            if not self._under_way:
                # Else it would wait, perhaps for a disk that hangs.
                self._call(self._calls["io_destroy"], self._context)
