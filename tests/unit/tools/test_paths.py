"""Which files tools may touch: every way in, and every way out that is closed."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from nous.tools.failure import ToolFailure
from nous.tools.paths import expand, open_directory, open_regular, resolve_path, shown_path
from tests.unit.tools.toolroom import Room


def resolve(room: Room, given: str, *, outputs: bool = False, outside: bool = False) -> Path:
    return resolve_path(given, room.context(allow_outside_workdir=outside), may_read_outputs=outputs)


def refusal(room: Room, given: str, *, outputs: bool = False, outside: bool = False) -> str:
    with pytest.raises(ToolFailure) as failure:
        resolve(room, given, outputs=outputs, outside=outside)
    return str(failure.value)


@pytest.mark.parametrize("given", ["a/b.txt", "./a/b.txt", "a/./c/../b.txt", "$PWD/a/b.txt", "a//b.txt"])
def test_within_the_working_directory(room: Room, given: str) -> None:
    assert resolve(room, given) == room.workdir / "a" / "b.txt"


def test_absolute(room: Room) -> None:
    assert resolve(room, str(room.workdir / "x")) == room.workdir / "x"
    assert resolve(room, ".") == room.workdir


@pytest.mark.parametrize("given", ["$id.tsx", "$HOMEWORK", "${HOME}", "a/~", "a/$HOME", "~user", "$", "%20", "a\\b"])
def test_nothing_else_expands(room: Room, given: str) -> None:
    assert resolve(room, given) == room.workdir / given


def test_home_expands(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(room.workdir / "home"))
    for given in ("~", "$HOME"):
        assert resolve(room, given) == room.workdir / "home"
        assert resolve(room, f"{given}/x") == room.workdir / "home" / "x"
    monkeypatch.setenv("HOME", str(room.outside))
    assert "~/x" in refusal(room, "~/x")


def test_expand_is_about_the_beginning_only() -> None:
    assert expand("$PWD", Path("/w")) == "/w"
    assert expand("x/$PWD", Path("/w")) == "x/$PWD"


@pytest.mark.parametrize("given", ["..", "../outside/x", "/etc/passwd", "a/../../outside", "/", "$PWD/../outside"])
def test_outside(room: Room, given: str) -> None:
    assert refusal(room, given).startswith(f'"{given}" is not open to tools')
    assert resolve(room, given, outside=True) == Path(os.path.realpath(room.workdir / given.replace("$PWD", ".")))


def test_a_sibling_whose_name_begins_alike_is_outside(room: Room) -> None:
    assert "not open" in refusal(room, "../work2/x")


def test_links_are_followed_first(room: Room) -> None:
    (room.outside / "secret").write_text("secret")
    (room.workdir / "direct").symlink_to(room.outside / "secret")
    (room.workdir / "directory").symlink_to(room.outside)
    (room.workdir / "chain").symlink_to("directory")
    (room.workdir / "inside").symlink_to("target")
    for given in ("direct", "directory/secret", "chain/secret", "chain/../outside/secret", "directory/new"):
        text = refusal(room, given)
        assert f'"{given}"' in text
        assert str(room.outside) not in text
    assert resolve(room, "inside") == room.workdir / "target"


def test_a_working_directory_behind_a_link(room: Room) -> None:
    real = room.outside / "real"
    real.mkdir()
    room.workdir.rmdir()
    room.workdir.symlink_to(real)
    assert resolve(room, "x") == real / "x"
    assert resolve(room, str(room.workdir / "x")) == real / "x"
    assert shown_path(real / "x", room.context()) == "x"


def test_the_state_directory_is_closed_but_for_outputs_to_read(room: Room) -> None:
    output = room.outputs / "call1.txt"
    for outside in (False, True):
        for given in (room.state, room.state / "sessions" / "s.ndjson", room.state / "outputs" / ".." / "x"):
            for outputs in (False, True):
                assert "not open" in refusal(room, str(given), outputs=outputs, outside=outside)
        assert resolve(room, str(output), outputs=True, outside=outside) == output
        assert "not open" in refusal(room, str(output), outside=outside)


def test_a_state_directory_within_the_working_directory_is_closed_too(room: Room) -> None:
    inner = Room.__new__(Room)
    inner.__dict__.update(room.__dict__)
    inner.state = room.workdir / ".state"
    inner.outputs = inner.state / "outputs" / "run1"
    assert "not open" in refusal(inner, ".state/sessions/x")
    assert "not open" in refusal(inner, ".state")
    assert resolve(inner, ".state/outputs/run1/x", outputs=True) == inner.outputs / "x"
    assert resolve(inner, ".state2/x") == room.workdir / ".state2" / "x"


def test_what_is_no_path(room: Room) -> None:
    assert "NUL" in refusal(room, "a\0b")
    assert "cannot be encoded" in refusal(room, "a\ud800b")


def test_names_beyond_what_the_system_takes_are_errors_of_the_system(room: Room) -> None:
    for given in ("x" * 300, "x/" * 3000 + "y"):
        path = resolve(room, given)
        with pytest.raises(ToolFailure, match="too long") as failure:
            open_regular(path, given)
        assert len(str(failure.value)) < 500


def test_names_in_errors_stand_on_one_line(room: Room) -> None:
    assert '"/a\\u000ab\\u202ec"' in refusal(room, "/a\nb\u202ec")


names = st.sampled_from(["a", "b", "..", ".", "link-in", "link-out", "~", "$HOME", "$PWD", "", "état", "\u2028"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@hypothesis.given(st.lists(names, min_size=1, max_size=6).map("/".join), st.booleans())
def test_whatever_is_given_leads_into_the_working_directory_or_nowhere(room: Room, given: str, outputs: bool) -> None:
    for name, target in (("link-in", "a"), ("link-out", str(room.outside))):
        if not (room.workdir / name).is_symlink():
            (room.workdir / name).symlink_to(target)
    try:
        path = resolve(room, given, outputs=outputs)
    except ToolFailure as failure:
        said = str(failure)
    else:
        said = ""
        assert path.is_relative_to(room.workdir)
        assert Path(os.path.realpath(path)) == path
    assert str(room.outside) not in said


def test_only_regular_files_are_opened(room: Room) -> None:
    os.mkfifo(room.workdir / "fifo")
    (room.workdir / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(room.workdir / "socket"))
    for name, said in (
        ("fifo", "not a regular file"),
        ("socket", "not a regular file"),
        ("directory", "is a directory"),
        ("missing", "No such file"),
    ):
        with pytest.raises(ToolFailure, match=said):
            open_regular(room.workdir / name, name)
    with pytest.raises(ToolFailure, match="not a regular file"):
        open_regular(Path("/dev/zero"), "/dev/zero")


def test_a_link_put_there_after_the_look_is_not_followed(room: Room) -> None:
    room.write("file", "fine")
    path = resolve(room, "file")
    path.unlink()
    (room.outside / "secret").write_text("secret")
    path.symlink_to(room.outside / "secret")
    with pytest.raises(ToolFailure, match="symbolic links"):
        open_regular(path, "file")


@pytest.mark.skipif(sys.platform != "linux", reason="the place of an open file is known through /proc")
def test_a_directory_swapped_after_the_look_is_noticed(room: Room) -> None:
    room.write("directory/file", "fine")
    path = resolve(room, "directory/file")
    (room.outside / "file").write_text("secret")
    (room.workdir / "directory").rename(room.workdir / "moved")
    (room.workdir / "directory").symlink_to(room.outside)
    with pytest.raises(ToolFailure, match="was moved"):
        open_regular(path, "directory/file")
    with pytest.raises(ToolFailure):
        open_directory(path.parent, "directory")


def test_opened_files_are_closed_on_exec_and_when_refused(room: Room) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  names are enough
    fd = open_regular(room.write("file"), "file")
    assert not os.get_inheritable(fd)
    os.close(fd)
    with pytest.raises(ToolFailure):
        open_regular(room.workdir, ".")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
