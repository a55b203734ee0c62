"""Programs of nous's own that run in an interpreter of their own: what may hang or eat memory goes there."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Final

import nous

_PROGRAM: Final = "import sys; sys.path[:0] = {paths!r}; from {module} import main; main()"


def own_program(module: str, *arguments: str) -> list[str]:
    """Return the command line that calls ``main`` of one of nous's modules.

    The child runs without site and without anything the environment says about Python: its start is most of its cost.
    """
    return [sys.executable, "-I", "-S", "-W", "ignore", "-X", "utf8", "-c", _program(module), *arguments]


@cache
def _program(module: str) -> str:
    """Return the child's program: it runs without site, so it is told where its modules are."""
    package_parent = str(Path(nous.__file__).parent.parent)
    paths = [package_parent, *(path for path in sys.path if path.startswith("/"))]
    return _PROGRAM.format(paths=paths, module=module)
