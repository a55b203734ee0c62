"""Where a recording is performed: a daemon of its own, in a directory of its own, with nothing real within reach.

The child gets no key, no configuration of the user's and no state but its own: its home, its state directory and its
workdir are all made for it and removed with it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

import nous
from nous.errors import NousError
from nous.replay.serving import Drive, Speed
from nous.system.state_dir import init_state_dir

SCALE_VARIABLE: Final = "TEST_TIMEOUT_SCALE"
"""The environment variable that stretches every wait of a replay: for machines slower than one thought of."""

CONFIG: Final = {"engine": {"compact_keep_tokens": 0}}
"""What a replaying daemon needs beside its flags: that it never finds a conversation too short to be compacted.  What a
compaction really keeps is in the recording."""

PASSED_VARIABLES: Final = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "NOUS_CORRELATION_ID",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONHASHSEED",
    "PYTHONDONTWRITEBYTECODE",
)
"""What an interpreter may need to start, and what ties its logs to ours: a replay must not depend on any of it.

Nothing else is handed on.
"""


class Stage(NamedTuple):
    """The directories of one replaying daemon, all below ``root``."""

    root: Path

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.root / "state"

    @property
    def workdir(self) -> Path:
        """The working directory."""
        return self.root / "work"

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.root / "config.yaml"

    def arguments(self, path: Path, *, drive: Drive, speed: Speed) -> list[str]:
        """Return the flags of ``nous serve`` for performing a recording here."""
        flags = {
            "--provider": "replay",
            "--replay-from": path.absolute(),
            "--replay-drive": drive,
            "--replay-speed": speed,
            "--state-dir": self.state,
            "--workdir": self.workdir,
            "--config": self.config,
        }
        return [str(part) for flag in flags.items() for part in flag]

    def environment(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the environment of a daemon here."""
        passed = {name: environ[name] for name in PASSED_VARIABLES if name in environ}
        code = [str(Path(nous.__file__).parents[1]), *filter(None, [environ.get("PYTHONPATH")])]
        return {**passed, "HOME": str(self.root), "PYTHONPATH": os.pathsep.join(code)}


@contextmanager
def open_stage() -> Iterator[Stage]:
    """Make the directories, and remove them in the end."""
    with tempfile.TemporaryDirectory(prefix="nous-replay-", ignore_cleanup_errors=True) as root:
        stage = Stage(Path(root).resolve())
        stage.workdir.mkdir()
        init_state_dir(stage.state, "nous replay")
        stage.config.write_bytes(msgspec.json.encode(CONFIG))
        yield stage


def scaled(seconds: float, environ: Mapping[str, str] = os.environ) -> float:
    """Return a wait stretched by ``TEST_TIMEOUT_SCALE``.

    Raises:
        NousError: ``invalid_config`` if that is no positive number.
    """
    text = environ.get(SCALE_VARIABLE, "1")
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < 1e6:
        raise NousError("invalid_config", f"{SCALE_VARIABLE}: expected a positive number")
    return seconds * factor
