"""The state directory: consent, modes, refusals; and the epoch lock, held by real processes."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest

from nous import __version__
from nous.errors import NousError
from nous.system.state_dir import (
    Actor,
    EpochLock,
    default_state_dir,
    home_dir,
    init_state_dir,
    is_dead,
    list_epochs,
    open_state_dir,
    read_bootstrap_record,
    state_paths,
)

SUBDIRS = {"sessions", "traces", "outputs", "daemons", "exports"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to another user needs root")
needs_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")

HOLD_LOCK = """
import os, sys
from pathlib import Path
from nous.system.state_dir import EpochLock
lock = EpochLock.acquire(Path(sys.argv[1]), "held")
print("held", flush=True)
sys.stdin.read()
"""


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    root = tmp_path / "state"
    init_state_dir(root, "nous init")
    return root


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# Where it is


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/home/ada"}, "/home/ada/.local/state/nous"),
        ({"HOME": "/home/ada", "XDG_STATE_HOME": "/var/ada"}, "/var/ada/nous"),
        ({"HOME": "/home/ada", "XDG_STATE_HOME": ""}, "/home/ada/.local/state/nous"),
        ({"HOME": "/home/ada", "XDG_STATE_HOME": "relative/is/ignored"}, "/home/ada/.local/state/nous"),
    ],
)
def test_default_place(environ: dict[str, str], expected: str) -> None:
    assert default_state_dir(environ) == Path(expected)


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_home_falls_back_to_the_user_database(environ: dict[str, str]) -> None:
    assert home_dir(environ).is_absolute()


def test_a_user_nobody_knows_must_set_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 7)
    with pytest.raises(NousError, match="no home directory") as caught:
        default_state_dir({})
    assert caught.value.exit_code == 6


def test_paths_alone_touch_nothing(tmp_path: Path) -> None:
    paths = state_paths(tmp_path / "absent")
    assert paths.traces == tmp_path / "absent" / "traces"
    assert list(tmp_path.iterdir()) == []


# Consent


def test_missing_without_consent(tmp_path: Path) -> None:
    with pytest.raises(NousError) as caught:
        open_state_dir(tmp_path / "state")
    assert (caught.value.code, caught.value.exit_code) == ("state_dir_missing", 6)
    assert caught.value.cause == str(tmp_path / "state")
    assert "nous init" in str(caught.value.hint)
    assert "--bootstrap" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_other_files_is_not_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(NousError) as caught:
        open_state_dir(tmp_path)
    assert caught.value.code == "state_dir_missing"
    assert caught.value.cause == f"{tmp_path} is a directory with other files, not one of nous"
    assert caught.value.hint == "Choose an empty or a new directory."


def test_an_empty_directory_is_not_consent(tmp_path: Path) -> None:
    with pytest.raises(NousError) as caught:
        open_state_dir(tmp_path)
    assert caught.value.code == "state_dir_missing"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("actor", get_args(Actor))
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_made_with_consent(tmp_path: Path, actor: Actor, mask: int) -> None:
    root = tmp_path / "deep" / "below" / "state"
    with umask(mask):
        opened = open_state_dir(root, actor)
    assert opened.warnings == ()
    assert {path.name for path in root.iterdir()} == SUBDIRS | {"bootstrap.json"}
    assert {mode_of(path) for path in (root, *(root / name for name in SUBDIRS))} == {0o700}
    assert mode_of(root / "bootstrap.json") == 0o600
    assert all(mode_of(parent) & 0o077 == 0 for parent in (root.parent, root.parent.parent))


def test_a_umask_that_takes_from_the_owner_does_no_harm(tmp_path: Path) -> None:
    with umask(0o377):
        init_state_dir(tmp_path / "state", "nous init")
    assert open_state_dir(tmp_path / "state").warnings == ()
    assert mode_of(tmp_path / "state" / "traces") == 0o700
    assert mode_of(tmp_path / "state" / "bootstrap.json") == 0o600


def test_the_record_says_who_when_and_how(tmp_path: Path) -> None:
    open_state_dir(tmp_path, "--bootstrap")
    record = read_bootstrap_record(tmp_path)
    assert record is not None
    assert (record.actor, record.nous_version, record.state_version) == ("--bootstrap", __version__, 1)
    assert (record.uid, record.pid) == (os.geteuid(), os.getpid())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.created_at)


def test_a_second_init_changes_nothing(state: Path) -> None:
    before = (state / "bootstrap.json").read_bytes()
    assert init_state_dir(state, "--bootstrap") is False
    assert (state / "bootstrap.json").read_bytes() == before


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"actor":1}'])
def test_an_unreadable_record_reads_as_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "bootstrap.json").write_bytes(content)
    assert read_bootstrap_record(tmp_path) is None


def test_other_peoples_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(NousError) as caught:
        open_state_dir(tmp_path, "--bootstrap")
    assert caught.value.code == "unsafe_operation"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_init_that_was_cut_is_finished(tmp_path: Path) -> None:
    for name in ("sessions", "traces"):
        (tmp_path / name).mkdir(0o700)
    (tmp_path / ".bootstrap.json.01ab").touch()
    with pytest.raises(NousError, match="was not made ready yet"):
        open_state_dir(tmp_path)
    assert init_state_dir(tmp_path, "nous init") is True
    assert {path.name for path in open_state_dir(tmp_path).root.iterdir()} > SUBDIRS


def test_inits_at_once_all_succeed(tmp_path: Path) -> None:
    root = tmp_path / "new" / "state"
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: open_state_dir(root, "--bootstrap"), range(32)))
    assert {item.root for item in opened} == {root}
    assert {path.name for path in root.iterdir()} == SUBDIRS | {"bootstrap.json"}


def test_a_removed_subdirectory_comes_back(state: Path) -> None:
    (state / "outputs").rmdir()
    assert open_state_dir(state).warnings == ()
    assert mode_of(state / "outputs") == 0o700


# Refusals and warnings


@pytest.mark.parametrize("bootstrap", [None, "--bootstrap"])
def test_a_file_in_its_place(tmp_path: Path, bootstrap: Actor | None) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(NousError, match="is not a directory") as caught:
        open_state_dir(tmp_path / "state", bootstrap)
    assert caught.value.code == "io_failure"


def test_a_file_above_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NousError, match="file") as caught:
        open_state_dir(tmp_path / "file" / "state", "--bootstrap")
    assert caught.value.code == "io_failure"


def test_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "state").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NousError, match="is not a directory"):
        open_state_dir(tmp_path / "state", "--bootstrap")


def test_a_file_in_place_of_a_subdirectory(state: Path) -> None:
    (state / "traces").rmdir()
    (state / "traces").touch()
    with pytest.raises(NousError, match="traces is not a directory"):
        open_state_dir(state)


@needs_user
@pytest.mark.parametrize("name", [".", "traces"])
def test_not_writable(state: Path, name: str) -> None:
    (state / name).chmod(0o500)
    with pytest.raises(NousError, match="is not writable") as caught:
        open_state_dir(state)
    assert caught.value.code == "io_failure"


def test_a_file_system_that_takes_no_directories() -> None:
    with pytest.raises(NousError) as caught:
        open_state_dir(Path("/proc/nous/state"), "--bootstrap")
    assert caught.value.code == "io_failure"
    assert "/proc/nous" in str(caught.value.cause)


@needs_root
@pytest.mark.parametrize("name", [".", "sessions"])
def test_the_wrong_owner(state: Path, name: str) -> None:
    os.chown(state / name, 4242, -1)
    with pytest.raises(NousError, match="belongs to user 4242") as caught:
        open_state_dir(state)
    assert caught.value.exit_code == 8


@pytest.mark.parametrize("name", [".", *sorted(SUBDIRS), "bootstrap.json"])
def test_modes_that_let_others_in_are_reported_not_changed(state: Path, name: str) -> None:
    path = state / name
    wide = mode_of(path) | 0o044
    path.chmod(wide)
    (warning,) = open_state_dir(state).warnings
    assert warning.startswith(f"{path} has mode {wide:04o}, should be 0")
    assert mode_of(path) == wide


# Epoch locks


@pytest.fixture
def daemons(state: Path) -> Path:
    return state / "daemons"


@pytest.fixture
def holder(daemons: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLD_LOCK, str(daemons)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield child
        child.kill()


def test_a_held_lock_is_seen_from_the_same_process(daemons: Path) -> None:
    lock = EpochLock.acquire(daemons, "mine")
    assert not is_dead(daemons, "mine")
    assert EpochLock.claim(daemons, "mine") is None
    lock.release()
    assert is_dead(daemons, "mine")
    lock.release()


def test_kill_9_frees_the_lock(daemons: Path, holder: subprocess.Popen[bytes]) -> None:
    assert not is_dead(daemons, "held")
    assert list_epochs(daemons) == ["held"]
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=30)
    assert is_dead(daemons, "held")
    claimed = EpochLock.claim(daemons, "held")
    assert claimed is not None
    assert not is_dead(daemons, "held"), "whoever cleans up is alone"
    assert EpochLock.claim(daemons, "held") is None
    claimed.release()
    assert list_epochs(daemons) == []


def test_a_child_does_not_keep_the_lock(daemons: Path) -> None:
    """Close-on-exec: a tool left behind by a daemon that died must not make it look alive."""
    leave_child = 'import subprocess\nsubprocess.Popen(["cat"], close_fds=False)\nos._exit(0)\n'
    script = HOLD_LOCK.replace('print("held", flush=True)\nsys.stdin.read()\n', leave_child)
    command = [sys.executable, "-c", script, str(daemons)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # cat lives until its end
        assert child.wait(timeout=30) == 0
        assert list_epochs(daemons) == ["held"]
        assert is_dead(daemons, "held")


def test_the_file_is_private_and_names_its_owner(daemons: Path) -> None:
    lock = EpochLock.acquire(daemons, "mine")
    assert mode_of(lock.path) == 0o600
    assert f'"pid":{os.getpid()}' in lock.path.read_text(encoding="utf-8")
    lock.release()


def test_a_claim_of_a_file_removed_meanwhile_is_no_claim(daemons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process cleaned up between our open and our lock."""
    path = daemons / "gone.lock"
    path.touch()
    real_open = os.open

    def open_then_lose(*args: object, **kwargs: object) -> int:
        fd: int = real_open(*args, **kwargs)  # type: ignore[arg-type]
        path.unlink()
        return fd

    monkeypatch.setattr(os, "open", open_then_lose)
    assert EpochLock.claim(daemons, "gone") is None


def test_examining_does_not_disturb_examining(daemons: Path) -> None:
    (daemons / "old.lock").touch()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: is_dead(daemons, "old"), range(400)))


@pytest.mark.parametrize("epoch", ["", "../bootstrap", "a/b", "never-was"])
def test_unknown_epochs_are_dead(daemons: Path, epoch: str) -> None:
    assert is_dead(daemons, epoch)
    assert EpochLock.claim(daemons, epoch) is None


def test_epochs_of_an_absent_directory(tmp_path: Path) -> None:
    assert list_epochs(tmp_path / "absent") == []


@pytest.mark.parametrize("examine", [EpochLock.claim, is_dead])
def test_a_lock_that_cannot_be_opened_is_an_io_failure(daemons: Path, examine: Callable[[Path, str], object]) -> None:
    (daemons / "loop.lock").symlink_to("loop.lock")
    with pytest.raises(NousError, match=r"loop\.lock") as caught:
        examine(daemons, "loop")
    assert caught.value.code == "io_failure"


def test_acquiring_makes_no_directory(tmp_path: Path) -> None:
    with pytest.raises(NousError, match="absent") as caught:
        EpochLock.acquire(tmp_path / "absent", "mine")
    assert caught.value.code == "io_failure"
    assert list(tmp_path.iterdir()) == []


def test_an_epoch_is_taken_once(daemons: Path) -> None:
    """A leftover of the same name, which random epochs never have, is not overwritten."""
    (daemons / ".mine.lock-new").touch()
    with pytest.raises(NousError) as caught:
        EpochLock.acquire(daemons, "mine")
    assert caught.value.code == "io_failure"
