"""Temporary files of killed processes: what is old and nobody's goes, everything else stays."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from nous.cli.timeline import duration
from nous.system.leftovers import LEFT_AFTER_S, find_leftovers, remove_leftovers


def make(path: Path, *, age_s: float = LEFT_AFTER_S + 60) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_what_was_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    sessions = tmp_path / "sessions"
    left = [
        make(tmp_path / ".bootstrap.json.x1"),
        make(tmp_path / "daemons" / ".ep-1.lock-new"),
        make(tmp_path / "traces" / ".nous-ep-1-0a0b.tmp"),
    ]
    kept = [
        make(tmp_path / "bootstrap.json"),
        make(tmp_path / "daemons" / "ep-1.lock"),
        make(tmp_path / "daemons" / ".ep-2.lock-new", age_s=0),
        make(sessions / ".s1.ndjson.tmp"),
        make(tmp_path / "traces" / "run-1.ndjson"),
    ]
    os.mkfifo(tmp_path / "daemons" / ".ep-3.lock-new")
    (tmp_path / "linked").symlink_to(tmp_path / "daemons")
    held = make(tmp_path / "daemons" / ".ep-4.lock-new")
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert sorted(remove_leftovers(tmp_path, sessions)) == sorted(left)
    assert all(path.exists() for path in (*kept, held))
    assert list(find_leftovers(tmp_path / "nowhere")) == []


def test_no_negative_duration_is_shown() -> None:
    assert [duration(ms) for ms in (None, -1, 0, 999, 1500)] == ["", "", "0 ms", "999 ms", "1.5 s"]
