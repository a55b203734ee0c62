"""The Python environment: nous's own programs in interpreters of their own, and what else is installed as ``nous``."""

from __future__ import annotations

import sys
from contextlib import suppress
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


def other_distribution() -> str | None:
    """Return the name and version of another distribution that installs a package ``nous`` here, if there is one.

    Ours is called ``nous-core``.  Both write into the same directory, so modules of either may be the other's.
    """
    places = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    for place in dict.fromkeys([str(Path(nous.__file__).parent.parent), *places]):
        with suppress(OSError):
            for name in (path.name for path in Path(place).iterdir()):
                if name.lower().startswith("nous-") and name.endswith((".dist-info", ".egg-info")):
                    return name.rpartition(".")[0]
    return None
