"""The fixture of the tools' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.tools.toolroom import Room, remove_nested


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


@pytest.fixture
def nested(room: Room) -> Iterator[Path]:
    """Yield the working directory, in which directories ``d`` may be nested as deep as a test wants."""
    yield room.workdir
    remove_nested(room.workdir)
