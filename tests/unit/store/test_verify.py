"""Walking the chain: whatever byte is changed, the report names the line it stands in."""

from __future__ import annotations

import errno
from pathlib import Path

import anyio
import pytest

from nous.errors import NousError
from nous.store.faults import FaultyDisk
from nous.store.session_format import ORIGIN, LeafMove, SessionHeader, encode_line
from nous.store.sessions import SessionStore
from nous.store.verify import VerifyReport, verify_session
from tests.unit.store.helpers import NOW, append_row, compaction, verify_chain


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a session with an entry of each kind a run writes."""
    session = SessionStore(tmp_path).create("s1", NOW)
    append_row(session, "abc")
    session.try_append(compaction("k1", "c", "b"))
    session.try_append(LeafMove(id="l1", parent_id="c", leaf_id="a", created_at=NOW))
    return tmp_path / "s1.ndjson"


def test_an_intact_file(path: Path) -> None:
    lines = verify_chain(path)
    assert verify_session(path) == VerifyReport(
        session_id="s1",
        file="s1.ndjson",
        ok=True,
        lines=6,
        messages=3,
        compactions=1,
        first_n=0,
        last_n=5,
        digest=lines[-1]["digest"],
        size=path.stat().st_size,
    )


def test_any_changed_byte_names_its_line(path: Path) -> None:
    data = path.read_bytes()
    starts = [0]
    for line in data.split(b"\n")[:-1]:
        starts.append(starts[-1] + len(line) + 1)
    for at in range(len(data)):
        number = sum(start <= at for start in starts[:-1])
        for flip in (0x01, 0x80):
            path.write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
            report = verify_session(path)
            place = report.torn if at == len(data) - 1 else report.damage
            assert report.ok == (at == len(data) - 1), (
                "an end of line that is missing at the end is what a crash leaves"
            )
            assert place is not None
            assert (place.line, place.offset) == (number, starts[number - 1]), f"byte {at}"


def test_every_cut_is_a_torn_line_or_shows_no_session(path: Path) -> None:
    data = path.read_bytes()
    header = data.index(b"\n") + 1
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        report = verify_session(path)
        whole = data[:cut].count(b"\n")
        if cut < header:
            assert not report.ok
            assert report.damage is not None
            assert report.damage.line == 1
        elif data[cut - 1 : cut] == b"\n":
            assert (report.ok, report.torn, report.lines) == (True, None, whole)
        else:
            assert report.ok
            assert report.torn is not None
            assert (report.torn.line, report.torn.offset) == (whole + 1, data.rindex(b"\n", 0, cut) + 1)
            assert report.torn.reason == f"{cut - report.torn.offset} bytes without an end of line"


def test_lines_that_were_left_out_or_swapped(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    for changed, number in (
        ([lines[0], *lines[2:]], 2),
        ([*lines[:3], lines[4], lines[3], *lines[5:]], 4),
        ([*lines[:4], lines[3], *lines[4:]], 5),
    ):
        path.write_bytes(b"\n".join(changed))
        report = verify_session(path)
        assert report.damage is not None
        assert (report.damage.line, report.damage.reason) == (number, "it does not follow the line before it")


def test_a_pruned_file_names_what_it_continues(path: Path) -> None:
    session = SessionStore(path.parent).get("s1")
    session.try_append(LeafMove(id="l2", leaf_id="c", created_at=NOW))
    anyio.run(session.checkpoint, "p1", NOW)
    last = verify_chain(path)[-1]
    anyio.run(session.prune)
    report = verify_session(path)
    assert report.ok
    assert (report.first_n, report.continues) == (last["n"] + 1, last["digest"])
    assert (report.last_n, report.lines, report.messages, report.pruned) == (last["n"] + 5, 5, 2, 1)


def test_what_does_not_fit_the_tree_is_named(path: Path) -> None:
    header, link = encode_line(SessionHeader(format=1, id="s1", created_at=NOW), ORIGIN)
    line, _ = encode_line(compaction("k1", "x"), link)
    path.write_bytes(header + line)
    report = verify_session(path)
    assert report.damage is not None
    assert (report.damage.line, report.damage.offset) == (2, len(header))
    assert report.damage.reason == "there is no message 'x' to follow"


def test_what_a_newer_version_wrote_is_said_to_be_newer(path: Path) -> None:
    path.write_bytes(encode_line(SessionHeader(format=9, id="s1", created_at=NOW), ORIGIN)[0])
    report = verify_session(path)
    assert (report.ok, report.newer) == (False, True)


def test_another_sessions_file(path: Path) -> None:
    renamed = path.rename(path.with_name("s2.ndjson"))
    report = verify_session(renamed)
    assert report.damage is not None
    assert (report.file, report.damage.line) == ("s2.ndjson", 1)


def test_a_branch_that_was_never_finished(path: Path) -> None:
    SessionStore(path.parent).branch("s1", "s2", NOW)
    branch = path.with_name("s2.ndjson")
    branch.write_bytes(branch.read_bytes()[:-1])
    report = verify_session(branch)
    assert (report.ok, report.lines) == (False, 0)


def test_what_cannot_be_read_is_an_error(path: Path) -> None:
    with pytest.raises(NousError) as caught:
        verify_session(path.with_name("no.ndjson"))
    assert caught.value.code == "session_not_found"
    with pytest.raises(NousError) as caught:
        verify_session(path, FaultyDisk(1, errno.EACCES))
    assert caught.value.code == "io_failure"
    path.unlink()
    path.mkdir()
    with pytest.raises(NousError) as caught:
        verify_session(path)
    assert caught.value.code == "io_failure"


def test_it_repairs_nothing(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"torn")
    before = path.read_bytes()
    verify_session(path)
    assert path.read_bytes() == before
    assert {found.name for found in path.parent.iterdir()} == {"s1.ndjson", "s1.lock"}
