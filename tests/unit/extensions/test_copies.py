"""Copies of projects' extensions: whole, made once, and never removed while somebody runs them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from nous.errors import NousError
from nous.extensions.clearance import Cleared, clear
from nous.extensions.copies import NEW_SECONDS, copy_extension, find_stale, lease_copy, remove_copy
from nous.extensions.discovery import find_installed, look_at
from nous.extensions.places import project_directory
from nous.system.trust import TrustStore
from tests.support.extension_programs import write_extension


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir()
    return made


@pytest.fixture
def directory(tmp_path: Path, state: Path) -> Path:
    made = write_extension(project_directory(tmp_path), "one", hooks=["tool_call"])
    trust(made, state)
    return made


def trust(directory: Path, state: Path) -> Path:
    copy = copy_extension(directory, state)
    TrustStore(state).trust(directory, copy.digest, (directory / "extension.yaml").read_bytes())
    return copy.directory


def cleared(directory: Path, state: Path) -> Cleared:
    return clear(look_at(directory, "project"), state)


def later() -> float:
    return time.time() + NEW_SECONDS + 60


def test_what_is_unchanged_is_copied_once(directory: Path, state: Path) -> None:
    first = cleared(directory, state)
    identity = first.directory.stat().st_ino, (first.directory / "main.py").stat().st_ino
    first.release()
    again = cleared(directory, state)
    assert (again.directory.stat().st_ino, (again.directory / "main.py").stat().st_ino) == identity


@pytest.mark.parametrize("in_use", [True, False])
def test_a_damaged_copy_is_replaced(directory: Path, state: Path, in_use: bool) -> None:
    first = cleared(directory, state)
    program = first.directory / "main.py"
    program.chmod(0o600)
    program.write_text("raise SystemExit", encoding="utf-8")
    if not in_use:
        first.release()
    again = cleared(directory, state)
    assert (again.directory / "main.py").read_bytes() == (directory / "main.py").read_bytes()
    assert again.directory == first.directory
    left = [path for path in again.directory.parent.iterdir() if path != again.directory]
    assert len(left) == in_use
    first.release()
    assert [path for path in find_stale(state, later()) if remove_copy(path)] == left
    assert list(again.directory.parent.iterdir()) == [again.directory]


def test_a_copy_has_the_digest_of_its_original(directory: Path, state: Path) -> None:
    (directory / "absolute").symlink_to(directory / "main.py")
    (directory / "relative").symlink_to("main.py")
    copy = trust(directory, state)
    again = cleared(directory, state)
    assert again.directory == copy
    assert (copy / "absolute").resolve() == copy / "main.py"
    assert copy not in find_stale(state, later())


def test_only_what_nobody_trusts_or_runs_is_removed(directory: Path, state: Path) -> None:
    old = cleared(directory, state)
    (directory / "main.py").write_text("changed", encoding="utf-8")
    new = trust(directory, state)
    unfinished = new.parent / ".new-1"
    (unfinished / "tree").mkdir(parents=True)
    assert list(find_stale(state)) == [], "all of it is new"
    assert set(find_stale(state, later())) == {old.directory, unfinished}
    assert remove_copy(unfinished)
    assert not remove_copy(old.directory), "it is in use"
    assert (old.directory / "main.py").exists()
    old.release()
    assert remove_copy(old.directory)
    assert not remove_copy(old.directory)
    assert list(new.parent.iterdir()) == [new]
    TrustStore(state).forget(directory)
    assert list(find_stale(state, later())) == [new]
    assert remove_copy(new)
    assert list((state / "extensions").iterdir()) == []


def test_what_is_in_use_is_not_removed_for_newer_copies(directory: Path, state: Path) -> None:
    first = cleared(directory, state)
    for number in range(6):
        (directory / "main.py").write_text(str(number), encoding="utf-8")
        trust(directory, state)
    assert (first.directory / "main.py").exists()
    assert len(list(first.directory.parent.iterdir())) == 4


def test_a_copy_that_was_moved_away_gives_no_lease(directory: Path, state: Path) -> None:
    record = TrustStore(state).find(directory)
    assert record is not None
    copy = lease_copy(directory, record.digest, state)
    assert copy is not None
    copy.lease.close()
    copy.lease.close()
    assert remove_copy(copy.directory)
    assert lease_copy(directory, record.digest, state) is None


def test_a_refused_manifest_keeps_no_lease(tmp_path: Path, state: Path) -> None:
    (tmp_path / "outside.sh").write_text("exit", encoding="utf-8")
    directory = write_extension(tmp_path / "p" / "q", "one", command=["bash", "../../../outside.sh"])
    copy = trust(directory, state)
    with pytest.raises(NousError, match="outside"):
        cleared(directory, state)
    assert remove_copy(copy)


# -- where it is installed


def test_a_link_counts_only_where_it_was_trusted(tmp_path: Path, state: Path) -> None:
    real = write_extension(tmp_path / "tools", "guard", hooks=["tool_call"])
    top = project_directory(tmp_path)
    top.mkdir(parents=True)
    (top / "linked").symlink_to(real)
    [one] = find_installed(tmp_path, {"HOME": str(tmp_path)})
    copy = copy_extension(real, state)
    manifest = (real / "extension.yaml").read_bytes()
    TrustStore(state).trust(real, copy.digest, manifest)
    with pytest.raises(NousError, match="trusted, but not as what"):
        clear(one, state)
    TrustStore(state).trust(real, copy.digest, manifest, [top / "linked"])
    assert clear(one, state).directory == copy.directory
    (top / "other").symlink_to(real)
    with pytest.raises(NousError, match="trusted, but not as what"):
        clear(look_at(top / "other", "project"), state)


def test_a_copy_s_owner_alone_may_read_it(directory: Path, state: Path) -> None:
    before = os.umask(0)
    try:
        (directory / "sub").mkdir()
        copy = trust(directory, state)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o077 for path in [copy.parent, copy, *copy.rglob("*")]} == {0}
