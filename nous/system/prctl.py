"""Linux's ``prctl``: protection of this process's memory, adoption of orphans, the parent-death signal.

Light to import: ctypes is loaded by the first call.  On other systems every call returns False and does nothing.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import cache
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36


def set_non_dumpable() -> bool:
    """Close this process's memory and environment to other processes of the same user.  Linux; else False.

    Every process that may hold a provider's key calls this before a model's tool can run beside it.  A new program
    (exec) is dumpable again until it calls this itself.
    """
    return prctl(_PR_SET_DUMPABLE, 0)


def set_child_subreaper(*, on: bool) -> bool:
    """Have the orphans of this process's descendants become its children, or not.  Linux; else False."""
    return prctl(_PR_SET_CHILD_SUBREAPER, int(on))


def death_hook() -> Callable[[], object] | None:
    """Return what a forked child calls to be killed when its parent ends; all it needs is loaded before the fork."""
    if sys.platform != "linux":
        return None
    function = _load()
    return lambda: function(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def prctl(option: int, argument: int) -> bool:
    """Call ``prctl`` with one argument; whether it succeeded."""
    return sys.platform == "linux" and _load()(option, argument, 0, 0, 0) == 0


@cache
def _load() -> Callable[..., int]:
    import ctypes

    function = ctypes.CDLL(None).prctl
    function.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    function.restype = ctypes.c_int
    found: Callable[..., int] = function
    return found
