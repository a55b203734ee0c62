"""Which files tools may touch: every way in, and every way out that is closed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from nous.tools.failure import ToolFailure
from nous.tools.paths import Place, expand, open_place, shown_path
from tests.unit.tools.toolroom import Room


def resolve(room: Room, given: str, *, outputs: bool = False, outside: bool = False) -> Path:
    with open_place(given, room.context(allow_outside_workdir=outside), may_read_outputs=outputs) as place:
        return place.path


def at(room: Room, given: str) -> Place:
    return open_place(given, room.context())


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
    for given, said in (("x" * 300, "too long"), ("x/" * 3000 + "y", "No such file"), ("x/" * 20_000, "too long")):
        with pytest.raises(ToolFailure, match=said) as failure:
            at(room, given).open_regular()
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
            at(room, name).open_regular()
    with pytest.raises(ToolFailure, match="not a regular file"):
        open_place("/dev/zero", room.context(allow_outside_workdir=True)).open_regular()


def test_a_link_put_there_after_the_look_is_not_followed(room: Room) -> None:
    path = room.write("file", "fine")
    with at(room, "file") as place:
        path.unlink()
        (room.outside / "secret").write_text("secret")
        path.symlink_to(room.outside / "secret")
        with pytest.raises(ToolFailure, match="symbolic links"):
            place.open_regular()


def test_a_directory_swapped_after_the_look_changes_nothing(room: Room) -> None:
    room.write("directory/file", "fine")
    (room.outside / "file").write_text("secret")
    with at(room, "directory/file") as file, at(room, "directory") as directory:
        (room.workdir / "directory").rename(room.workdir / "moved")
        (room.workdir / "directory").symlink_to(room.outside)
        fd = file.open_regular()
        assert os.read(fd, 100) == b"fine"
        os.close(fd)
        fd = directory.open_directory()
        assert os.fstat(fd).st_ino == (room.workdir / "moved").stat().st_ino
        os.close(fd)


def test_a_directory_that_is_missing_and_then_a_link_is_not_entered(room: Room) -> None:
    with at(room, "new/file") as place:
        (room.workdir / "new").symlink_to(room.outside)
        with pytest.raises(ToolFailure):
            place.open_parent(make=True)


def test_links_within_the_working_directory_are_followed_in_every_position(room: Room) -> None:
    room.write("a/b/file", "found")
    (room.workdir / "to-a").symlink_to("a")
    (room.workdir / "a/up").symlink_to("..")
    (room.workdir / "a/absolute").symlink_to(room.workdir / "a/b")
    (room.workdir / "a/b/out-and-in").symlink_to(f"../../../{room.workdir.name}/a/b/file")
    for given in ("to-a/b/file", "a/up/a/b/file", "to-a/up/to-a/absolute/file", "a/b/out-and-in", "to-a/../a/b/file"):
        with at(room, given) as place:
            assert place.path == room.workdir / "a/b/file"
            os.close(place.open_regular())


@pytest.mark.usefixtures("nested")
def test_a_path_as_deep_as_one_can_write_it(room: Room) -> None:
    depth = 2000
    with at(room, "d/" * depth + "file") as place:
        os.close(place.open_parent(make=True))
    with at(room, "d/" * depth + "../" * (depth - 1)) as place:
        assert place.path == room.workdir / "d"
    assert len(os.listdir("/proc/self/fd")) < 200  # noqa: PTH208


@pytest.mark.parametrize("name", ["nosuch", "secret", "secret/x", "nosuch/x"])
def test_what_lies_outside_is_not_told_from_what_does_not(room: Room, name: str) -> None:
    (room.outside / "secret").write_text("secret")
    assert refusal(room, f"../outside/{name}").split('"')[2] == refusal(room, "../outside/y").split('"')[2]


def test_opened_files_are_closed_on_exec_and_when_refused(room: Room) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  names are enough
    room.write("file")
    with at(room, "file") as place:
        fd = place.open_regular()
    assert not os.get_inheritable(fd)
    os.close(fd)
    for given in (".", "..", "no/such", "file/x"):
        with pytest.raises(ToolFailure):
            at(room, given).open_regular()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
