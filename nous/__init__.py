"""nous: the agent core that front ends spawn.

Commands in, events out, every run on disk.  The floors of the package, and which of them may import which,
are described in ``docs/architecture.md`` and checked by import-linter.
"""

__version__ = "0.1.0"
