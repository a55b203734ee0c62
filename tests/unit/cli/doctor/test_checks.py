"""Every check of ``nous doctor``, driven to pass, to warn and to fail by a real situation."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from nous.cli.doctor.check import Check, Situation, Status, perform
from nous.cli.doctor.command import CHECKS, ONLINE_CHECKS, PRODUCTION_CHECKS
from nous.cli.doctor.home import LARGE_LEFTOVERS_BYTES
from nous.extensions.places import project_directory, user_directory
from nous.store.session_index import INDEX_NAME
from nous.system.state_dir import EpochLock, state_paths
from nous.system.trust import TrustStore, digest_bytes, digest_tree
from nous.telemetry.log import flush
from tests.support.extension_programs import write_extension
from tests.unit.cli.doctor.room import KEY, LONG_AGO_S, Room, cut_last_line, spoil

BY_NAME = {check.name: check for check in (*CHECKS, *ONLINE_CHECKS, *PRODUCTION_CHECKS)}


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def nothing(_: Room) -> None: ...


def write_program(room: Room, name: str, text: str) -> None:
    programs = room.root / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / name
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)
    room.environ["PATH"] = str(programs)


def only_program(name: str, text: str) -> Callable[[Room], None]:
    return lambda room: write_program(room, name, text)


def temp_directory(mode: int | None) -> Callable[[Room], None]:
    def prepare(room: Room) -> None:
        room.environ["TMPDIR"] = str(room.root / "tmp")
        if mode is not None:
            (room.root / "tmp").mkdir()
            (room.root / "tmp").chmod(mode)

    return prepare


def checkout(hook: str | None, mode: int = 0o755) -> Callable[[Room], None]:
    """Make the workdir a checkout of nous, with a hook."""

    def prepare(room: Room) -> None:
        subprocess.run(["git", "init", "-q", str(room.workdir)], check=True)
        (room.workdir / "nous" / "cli" / "doctor").mkdir(parents=True)
        path = room.workdir / ".git" / "hooks" / "pre-push"
        path.parent.mkdir(exist_ok=True)
        if hook is not None:
            path.write_text(hook, encoding="utf-8")
            path.chmod(mode)

    return prepare


def remove_state(room: Room) -> None:
    room.state = state_paths(room.root / "absent")


def state_is_a_file(room: Room) -> None:
    remove_state(room)
    room.state.root.write_bytes(b"")


def open_a_session_to_others(room: Room) -> None:
    room.add_session().chmod(0o644)


def leave(size: int) -> Callable[[Room], object]:
    return lambda room: room.leave_temp(room.state.root, ".nous-trust-0123.tmp", size)


def hold_session_lock(room: Room, held_s: float) -> None:
    """Hold a session's lock in this process: flock tells descriptors apart, not processes."""
    fd = os.open(room.state.sessions / "ses-1.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    since_ms = int((time.time() - held_s) * 1000)
    os.write(fd, b'{"pid":%10d,"since_ms":%14d}\n' % (os.getpid(), since_ms))


def leave_daemon_lock(room: Room) -> None:
    (room.state.daemons / "dead.lock").write_bytes(b'{"pid":1}\n')


def tear_session(room: Room) -> None:
    with room.add_session().open("ab") as file:
        file.write(b'{"type":"mess')


def write_index(data: bytes) -> Callable[[Room], object]:
    return lambda room: (room.state.sessions / INDEX_NAME).write_bytes(data)


def trust_project(room: Room) -> None:
    path = room.write_project("{}")
    TrustStore(room.state.root).trust(path, digest_bytes(b"{}"))


def named_key(variable: str, provider: str = "openai", **held: str) -> Callable[[Room], None]:
    def prepare(room: Room) -> None:
        room.configure(provider={"name": provider, "model": "m", "api_key_env": variable})
        room.environ.update(held)

    return prepare


def with_provider(**settings: object) -> Callable[[Room], object]:
    return lambda room: room.configure(provider=settings)


def with_daemon(mode: int = 0o600, **settings: object) -> Callable[[Room], None]:
    return lambda room: room.configure(daemon=settings).chmod(mode)


def with_retention(**limits: int) -> Callable[[Room], object]:
    return lambda room: room.configure(retention=limits)


def with_variable(name: str, value: str) -> Callable[[Room], None]:
    return lambda room: room.environ.update({name: value})


def listen(directory_mode: int) -> Callable[[Room], None]:
    def prepare(room: Room) -> None:
        directory = room.root / "s"
        directory.mkdir()
        directory.chmod(directory_mode)
        path = directory / "n"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.path.relpath(path))
        listener.close()
        path.chmod(0o666)
        room.sockets.append(path)

    return prepare


def name_absent_socket(room: Room) -> None:
    room.sockets.append(room.root / "absent.sock")


def export_raw(room: Room) -> None:
    (room.state.exports / "ses-1.session.ndjson").write_bytes(b'{"type":"session.export","redaction":"none"}\n')


def fact(name: str, value: object) -> Callable[[Room], None]:
    return lambda room: room.facts.update({name: value})


CASES: dict[str, dict[Status, Callable[[Room], object]]] = {
    "python": {"pass": fact("python", (3, 12)), "warn": fact("python", (3, 99)), "fail": fact("python", (3, 10))},
    "packages": {
        "pass": nothing,
        "warn": fact("requirements", []),
        "fail": fact("requirements", ["msgspec>=99.0"]),
    },
    "disk_space": {
        "pass": fact("free_bytes", 1 << 40),
        "warn": fact("free_bytes", 500 << 20),
        "fail": fact("free_bytes", 1 << 20),
    },
    "temp_directory": {"pass": temp_directory(0o700), "warn": temp_directory(0o777), "fail": temp_directory(None)},
    "ripgrep": {
        "pass": only_program("rg", "#!/bin/sh\necho 'ripgrep 14.1.0'\n"),
        "warn": only_program("other", "#!/bin/sh\n"),
        "fail": only_program("rg", "#!/bin/sh\nexit 3\n"),
    },
    "git_hooks": {"pass": checkout("#!/bin/sh\n"), "warn": checkout(None), "fail": checkout("#!/bin/sh\n", 0o644)},
    "state_directory": {"pass": nothing, "warn": open_a_session_to_others, "fail": state_is_a_file},
    "leftovers": {"pass": nothing, "warn": leave(1), "fail": leave(LARGE_LEFTOVERS_BYTES)},
    "locks": {"pass": nothing, "warn": leave_daemon_lock, "fail": lambda room: hold_session_lock(room, 3600)},
    "sessions": {"pass": Room.add_session, "warn": tear_session, "fail": lambda room: spoil(room.add_session())},
    "traces": {
        "pass": Room.add_trace,
        "warn": lambda room: cut_last_line(room.add_trace()),
        "fail": lambda room: spoil(room.add_trace()),
    },
    "session_index": {
        "pass": write_index(b'{"format":2,"rows":0}\n'),
        "warn": write_index(b'{"format":0,"rows":{}}'),
        "fail": write_index(b"{"),
    },
    "configuration": {
        "pass": trust_project,
        "warn": lambda room: room.write_project("{}"),
        "fail": lambda room: room.configure(daemon={"max_rums": 1}),
    },
    "key_sources": {
        "pass": named_key("MINE", MINE=KEY),
        "warn": named_key("MINE", MINE=KEY, OPENAI_API_KEY="another"),
        "fail": named_key("OPENAI_API_KEY", provider="anthropic"),
    },
    "provider_key": {
        "pass": named_key("MINE", MINE=KEY),
        "warn": nothing,
        "fail": with_provider(name="openai", model="m"),
    },
    "extensions": {
        "pass": lambda room: write_extension(user_directory(room.environ), "mine"),
        "warn": lambda room: write_extension(project_directory(room.workdir), "theirs"),
        "fail": lambda room: write_extension(user_directory(room.environ), "mine", "", command=["false"]),
    },
    "production.extensions": {
        "pass": lambda room: write_extension(user_directory(room.environ), "mine"),
        "warn": lambda room: room.configure(extensions={"skip": ["other"]}),
        "fail": lambda room: write_extension(project_directory(room.workdir), "theirs"),
    },
    "production.profile": {
        "pass": with_daemon(profile="production"),
        "warn": with_daemon(mode=0o622, profile="production"),
        "fail": nothing,
    },
    "production.provider": {
        "pass": with_provider(name="openai", model="m"),
        "warn": with_provider(name="openai", model="m", allow_insecure=True),
        "fail": with_provider(name="mock"),
    },
    "production.consent": {
        "pass": nothing,
        "warn": with_variable("NOUS_ALLOW_BOOTSTRAP", "0"),
        "fail": with_variable("NOUS_ALLOW_BOOTSTRAP", "1"),
    },
    "production.line_size": {
        "pass": nothing,
        "warn": with_daemon(max_line_bytes=16 << 20),
        "fail": with_daemon(max_line_bytes=48 << 20),
    },
    "production.retention": {
        "pass": with_retention(max_sessions=100, max_trace_days=30, max_outputs=100),
        "warn": with_retention(max_sessions=100, max_trace_days=30),
        "fail": nothing,
    },
    "production.sockets": {"pass": listen(0o700), "warn": name_absent_socket, "fail": listen(0o755)},
    "production.redaction": {
        "pass": with_variable("OPENAI_API_KEY", KEY),
        "warn": with_variable("OPENAI_API_KEY", "abc"),
        "fail": export_raw,
    },
}


def test_every_check_is_driven_to_each_status() -> None:
    asked_elsewhere = {check.name for check in ONLINE_CHECKS}  # tests/process/test_doctor.py, with a server
    assert set(CASES) == set(BY_NAME) - asked_elsewhere
    assert all(set(cases) == set(get_args(Status)) for cases in CASES.values())


@pytest.mark.parametrize(("name", "status"), [(name, status) for name, cases in CASES.items() for status in cases])
def test_check(room: Room, name: str, status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(room.root)
    CASES[name][status](room)
    row = perform(BY_NAME[name], room.look())
    assert row.status == status, row
    assert row.message
    assert (row.fix is None) == (status == "pass"), "what does not pass says what to do"
    assert KEY not in f"{row}"


@pytest.mark.parametrize("name", [name for name in CASES if BY_NAME[name].repair is not None])
@pytest.mark.parametrize("status", ["warn", "fail"])
def test_what_can_be_repaired_passes_afterwards(room: Room, name: str, status: Status) -> None:
    if (name, status) in {("state_directory", "fail"), ("locks", "fail")}:
        pytest.skip("that is for a person to do")
    CASES[name][status](room)
    check = BY_NAME[name]
    assert check.repair is not None
    done = check.repair(room.look())
    assert done
    assert perform(check, room.look()).status == "pass"
    assert check.repair(room.look()) == [] or name == "session_index", "and there is nothing left to do"


def test_a_check_writes_nothing(room: Room) -> None:
    room.add_session()
    room.add_trace()
    leave_daemon_lock(room)
    before = snapshot(room)
    for check in (*CHECKS, *PRODUCTION_CHECKS):
        perform(check, room.look())
    assert snapshot(room) == before


def snapshot(room: Room) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mode, path.stat().st_mtime_ns) for path in sorted(room.root.rglob("*"))}


def test_without_a_state_directory_everything_can_be_asked(room: Room) -> None:
    remove_state(room)
    rows = {check.name: perform(check, room.look()) for check in CHECKS}
    assert rows["state_directory"].status == "warn"
    assert not [row for row in rows.values() if row.status == "fail"]
    assert not room.state.root.exists()


# -- what is somebody else's stays


def test_the_trace_of_a_daemon_that_lives_is_left_alone(room: Room) -> None:
    path = room.add_trace()
    cut_last_line(path)
    epoch = json.loads(path.read_bytes().partition(b"\n")[0])["epoch"]
    lock = EpochLock.acquire(room.state.daemons, epoch)
    assert perform(BY_NAME["traces"], room.look()).status == "pass"
    repair = BY_NAME["traces"].repair
    assert repair is not None
    assert repair(room.look()) == []
    lock.release()
    assert perform(BY_NAME["traces"], room.look()).status == "warn"


def test_a_trace_that_was_cut_within_its_header_is_no_failure_and_is_moved(room: Room) -> None:
    paths = [room.add_trace(), room.state.traces / "run-empty.ndjson"]
    paths[0].write_bytes(paths[0].read_bytes()[:40])
    paths[1].touch()
    for path in paths:
        os.utime(path, (LONG_AGO_S,) * 2)
    assert perform(BY_NAME["traces"], room.look()).status == "warn"
    repair = BY_NAME["traces"].repair
    assert repair is not None
    assert len(repair(room.look())) == 2
    assert perform(BY_NAME["traces"], room.look()).status == "pass"
    assert len(list((room.state.root / "quarantine").iterdir())) == 2


def test_a_session_that_is_being_written_is_not_moved(room: Room) -> None:
    path = room.add_session()
    spoil(path)
    hold_session_lock(room, 0)
    repair = BY_NAME["sessions"].repair
    assert repair is not None
    with pytest.raises(Exception, match="owner_pid"):
        repair(room.look())
    assert path.exists()


def test_what_is_moved_is_whole_and_has_a_name_of_its_own(room: Room) -> None:
    repair = BY_NAME["sessions"].repair
    assert repair is not None
    kept = []
    for _ in range(2):
        path = room.add_session()
        spoil(path)
        kept.append(path.read_bytes())
        repair(room.look())
        assert not path.exists()
    found = sorted((room.state.root / "quarantine").iterdir())
    assert [path.name for path in found] == ["ses-1.ndjson.1", "ses-1.ndjson.2"]
    assert [path.read_bytes() for path in found] == kept


def test_a_torn_end_is_kept_aside(room: Room) -> None:
    tear_session(room)
    repair = BY_NAME["sessions"].repair
    assert repair is not None
    repair(room.look())
    (kept,) = room.state.sessions.glob("*.torn-*")
    assert kept.read_bytes() == b'{"type":"mess'


def test_a_temporary_file_that_is_being_written_is_no_leftover(room: Room) -> None:
    (room.state.root / ".nous-trust-0123.tmp").write_bytes(b"x")
    assert perform(BY_NAME["leftovers"], room.look()).status == "pass"


def test_a_check_that_crashes_is_a_check_that_failed(room: Room, capfd: pytest.CaptureFixture[str]) -> None:
    def crash(_: Situation) -> None:
        raise ZeroDivisionError

    row = perform(Check("crash", crash), room.look())  # type: ignore[arg-type]
    assert row.status == "fail"
    assert "ZeroDivisionError" in row.message
    assert flush()
    assert '"event":"check_crashed"' in capfd.readouterr().err


# -- extensions


def test_an_extension_that_is_trusted_is_started_and_one_that_is_not_never_is(room: Room) -> None:
    directory = write_extension(project_directory(room.workdir), "theirs", "open('ran', 'w').close()")
    row = perform(BY_NAME["extensions"], room.look())
    assert (row.status, row.fix) == ("warn", f"nous ext trust {directory}")
    assert not (directory / "ran").exists()
    TrustStore(room.state.root).trust(directory, digest_tree(directory))
    assert perform(BY_NAME["extensions"], room.look()).status == "pass"


def test_an_extension_that_was_trusted_and_removed_is_named(room: Room) -> None:
    directory = write_extension(project_directory(room.workdir), "theirs", hooks=["tool_call"])
    manifest = (directory / "extension.yaml").read_bytes()
    TrustStore(room.state.root).trust(directory, digest_tree(directory), manifest)
    shutil.rmtree(directory)
    for check, status in (("extensions", "warn"), ("production.extensions", "fail")):
        row = perform(BY_NAME[check], room.look())
        assert (row.status, row.fix) == (status, f"nous ext trust --forget {directory}")
        assert "theirs (removed)" in row.message
    room.configure(extensions={"skip": ["theirs"]})
    assert perform(BY_NAME["extensions"], room.look()).status == "pass"


@pytest.mark.parametrize(
    ("body", "manifest"),
    [("", {"command": ["{python}", "-c", "pass"]}), ("", {"command": ["./absent"]}), ("", {"hooks": ["no_such_hook"]})],
)
def test_what_keeps_an_extension_from_starting_fails(room: Room, body: str, manifest: dict[str, Any]) -> None:
    write_extension(user_directory(room.environ), "mine", body, **manifest)
    row = perform(BY_NAME["extensions"], room.look())
    assert row.status == "fail"
    assert "mine" in row.message


def test_extensions_that_are_switched_off_are_left_alone(room: Room) -> None:
    write_extension(user_directory(room.environ), "mine", "", command=["false"])
    room.configure(extensions={"enabled": False})
    assert perform(BY_NAME["extensions"], room.look()).status == "pass"
