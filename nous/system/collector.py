"""What the garbage collector need not look at."""

from __future__ import annotations

import gc

_YOUNG: int = 1


def set_aside() -> None:
    """Let no later collection look at what is alive now.

    A collection visits everything that each container holds, without a pause: a quarter of a million messages take
    longer than an event loop may wait.  To be called when such a container exists and before it is filled; it is freed
    like everything else as soon as nobody refers to it, but must then not be part of a cycle.  Young garbage is
    collected first, so that it does not stay.
    """
    gc.collect(_YOUNG)
    gc.freeze()
