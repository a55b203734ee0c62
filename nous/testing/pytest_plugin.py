"""Recordings as tests: every ``*.trace.ndjson`` under the given paths is one item, which replays it.

A divergence is the failure's text.  ``--nous-replay-mode`` (or ``nous_replay_mode`` in the ini file) chooses between a
bare engine, the default, and a whole daemon.  Nothing of nous is imported before the first recording is replayed: this
module is loaded by every pytest that runs where nous is installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

if TYPE_CHECKING:
    from nous.replay.report import Mode, Report

SUFFIX: Final = ".trace.ndjson"
MODES: Final = ("engine", "daemon")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting of the plugin."""
    group = parser.getgroup("nous", "recorded runs of nous")
    group.addoption("--nous-replay-mode", choices=MODES, help="replay recorded runs in a bare engine, or in a daemon")
    parser.addini("nous_replay_mode", "how recorded runs of nous are replayed: engine or daemon", default="engine")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect recordings by their suffix."""
    if not file_path.name.endswith(SUFFIX):
        return None
    return RecordingFile.from_parent(parent, path=file_path)


def replay_mode(config: pytest.Config) -> Mode:
    """Return the mode that was asked for.  Raises ``pytest.UsageError`` for one that there is not."""
    mode = config.getoption("--nous-replay-mode") or config.getini("nous_replay_mode")
    if mode not in MODES:
        raise pytest.UsageError(f"nous_replay_mode: expected one of {', '.join(MODES)}, not {mode!r}")
    return cast("Mode", mode)


class RecordingFile(pytest.File):
    """A recorded run."""

    def collect(self) -> Iterable[pytest.Item]:
        """Yield one test: the replay of the file."""
        yield RecordingItem.from_parent(self, name=replay_mode(self.config))


class RecordingItem(pytest.Item):
    """The replay of a recorded run."""

    def runtest(self) -> None:
        """Replay the recording; fail unless it is identical."""
        from nous.replay.run_many import replay_one

        report = replay_one(self.path, replay_mode(self.config))
        if report.verdict != "identical":
            raise NotIdenticalError(report)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **options: Any) -> Any:
        """Return where the replay differs, without a traceback."""
        if isinstance(excinfo.value, NotIdenticalError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, *args, **options)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return how reports name the test."""
        return self.path, 0, f"{self.path.name} ({self.name} mode)"


class NotIdenticalError(Exception):
    """A recording did not replay identical."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        from nous.replay.describe import failure_text

        return failure_text(self.report)
