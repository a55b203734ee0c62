"""edit: exactly one place changes, in the file's own style, or nothing does."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from nous.system.proctree import FAMILY
from nous.tools import edit
from nous.tools.changing import Change, Replacement, change_text
from nous.tools.edit import MAX_EDIT_BYTES, EditTool
from tests.unit.tools.toolroom import Room

pytestmark = pytest.mark.anyio

EDIT = EditTool()


async def test_one_place_is_replaced_and_shown_as_a_diff(room: Room) -> None:
    room.write("dir/file.py", "a = 1\nb = 2\nc = 3\n")
    text = await room.text(EDIT, path="dir/file.py", old_text="b = 2", new_text="b = 20")
    assert text == ("--- a/dir/file.py\n+++ b/dir/file.py\n@@ -1,3 +1,3 @@\n a = 1\n-b = 2\n+b = 20\n c = 3\n")
    assert (room.workdir / "dir/file.py").read_text() == "a = 1\nb = 20\nc = 3\n"


@pytest.mark.parametrize(
    "names",
    [("old_text", "new_text"), ("old_string", "new_string"), ("oldText", "newText"), ("oldString", "newString")],
)
async def test_other_names(room: Room, names: tuple[str, str]) -> None:
    room.write("file", "old")
    await room.text(EDIT, filePath="file", **dict(zip(names, ("old", "new"), strict=True)))
    assert (room.workdir / "file").read_text() == "new"


async def test_all_places(room: Room) -> None:
    room.write("file", "x1\ny\nx2\n")
    await room.text(EDIT, path="file", old_text="x", new_text="", replaceAll="true")
    assert (room.workdir / "file").read_text() == "1\ny\n2\n"


async def test_more_than_one_place_is_refused_with_their_number(room: Room) -> None:
    room.write("file", "x\ny\nx\n")
    text = await room.failure(EDIT, path="file", old_text="x", new_text="z")
    assert text == (
        '`old_text` stands 2 times in "file" (line 1, 3). '
        "Give more of the text around it to make it unique, or set `replace_all`."
    )
    room.write("overlap", "aaa")
    assert "stands 2 times" in await room.failure(EDIT, path="overlap", old_text="aa", new_text="b")
    assert (room.workdir / "file").read_text() == "x\ny\nx\n"


async def test_no_place_is_refused_with_what_to_do(room: Room) -> None:
    room.write("file", "def f():\n    return 1\n")
    text = await room.failure(EDIT, path="file", old_text="nothing like it", new_text="x")
    assert text == (
        '`old_text` stands 0 times in "file"; nothing was changed. Read the file again and copy the text exactly.'
    )
    text = await room.failure(EDIT, path="file", old_text="return 1\nx", new_text="x")
    assert "Its first line is like line 2: compare indentation" in text


async def test_nothing_to_do(room: Room) -> None:
    room.write("file", "text")
    assert "nothing to change" in await room.failure(EDIT, path="file", old_text="text", new_text="text")
    assert "nothing to change" in await room.failure(EDIT, path="file", old_text="a\r\n", new_text="a\n")


async def test_crlf_stays_crlf(room: Room) -> None:
    room.write("file", "one\r\ntwo\r\nthree\r\n")
    text = await room.text(EDIT, path="file", old_text="one\ntwo\n", new_text="1\n2\n2b\n")
    assert (room.workdir / "file").read_bytes() == b"1\r\n2\r\n2b\r\nthree\r\n"
    assert "+2b\r\n" in text
    await room.text(EDIT, path="file", old_text="2b\r\nthree", new_text="3\r\n4")
    assert (room.workdir / "file").read_bytes() == b"1\r\n2\r\n3\r\n4\r\n"
    await room.text(EDIT, path="file", old_text="4", new_text="4\n5")
    assert (room.workdir / "file").read_bytes() == b"1\r\n2\r\n3\r\n4\r\n5\r\n"


async def test_lf_stays_lf(room: Room) -> None:
    room.write("file", "one\ntwo\n")
    await room.text(EDIT, path="file", old_text="one\r\ntwo", new_text="1\r\n2")
    assert (room.workdir / "file").read_bytes() == b"1\n2\n"


async def test_mixed_newlines_stay_where_they_were(room: Room) -> None:
    room.write("file", "a\r\nb\nc\r\nd\n")
    await room.text(EDIT, path="file", old_text="b\nc", new_text="B\nC")
    assert (room.workdir / "file").read_bytes() == b"a\r\nB\nC\r\nd\n"


@pytest.mark.parametrize("old", ["first", "\ufefffirst"])
async def test_a_bom_stays(room: Room, old: str) -> None:
    room.write("file", "\ufefffirst\nsecond\n")
    await room.text(EDIT, path="file", old_text=old, new_text=old.replace("first", "1st"))
    assert (room.workdir / "file").read_bytes() == b"\xef\xbb\xbf1st\nsecond\n"


async def test_bytes_that_are_no_text_stay(room: Room) -> None:
    room.write("file", b"caf\xe9 old \xff\n")
    text = await room.text(EDIT, path="file", old_text="old", new_text="new")
    assert (room.workdir / "file").read_bytes() == b"caf\xe9 new \xff\n"
    assert "+caf\ufffd new \ufffd" in text


@pytest.mark.parametrize(("old", "new"), [("x = 1", "x = 2 // 日本"), ("\\", "/"), ("本", "x")])
async def test_no_utf_8_gets_into_a_file_of_another_encoding(room: Room, old: str, new: str) -> None:
    data = "x = 1\n// 日本語 表示\n".encode("shift_jis")
    room.write("file", data)
    text = await room.failure(EDIT, path="file", old_text=old, new_text=new)
    assert "is not UTF-8" in text or "stands 0 times" in text
    assert (room.workdir / "file").read_bytes() == data
    await room.text(EDIT, path="file", old_text="x = 1", new_text="x = 2")
    assert (room.workdir / "file").read_bytes().decode("shift_jis").startswith("x = 2\n// 日本語 表示")


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
async def test_utf_16_stays_utf_16(room: Room, codec: str) -> None:
    room.write("file", "\ufeffone\r\nzwei 日\r\n".encode(codec))
    await room.text(EDIT, path="file", old_text="one\nzwei", new_text="1 😀\n2")
    assert (room.workdir / "file").read_bytes() == "\ufeff1 😀\r\n2 日\r\n".encode(codec)


async def test_what_is_within_escape_sequences_is_not_edited(room: Room) -> None:
    data = "x = F|\n// 日本語 F|\ny = F|\n".encode("iso2022_jp")
    assert data.count(b"F|") == 4  # one of them is a half of two characters
    room.write("file", data)
    assert "middle of a character" in await room.failure(
        EDIT, path="file", old_text="F|", new_text="G", replace_all=True
    )
    assert "only ASCII text" in await room.failure(EDIT, path="file", old_text="x = F|", new_text="x = 日")
    assert "middle of a character" in await room.failure(EDIT, path="file", old_text="F|K", new_text="G")
    assert (room.workdir / "file").read_bytes() == data
    await room.text(EDIT, path="file", old_text="x = F|", new_text="x = G")
    await room.text(EDIT, path="file", old_text="y = F|", new_text="y = G")
    assert (room.workdir / "file").read_bytes() == "x = G\n// 日本語 F|\ny = G\n".encode("iso2022_jp")


async def test_an_escape_sequence_in_a_utf_8_file_is_no_encoding(room: Room) -> None:
    room.write("file", "\x1b$B é\nx\n")
    await room.text(EDIT, path="file", old_text="x", new_text="ü")
    assert (room.workdir / "file").read_text() == "\x1b$B é\nü\n"


async def test_half_a_character_of_utf_16_is_not_edited(room: Room) -> None:
    room.write("file", "\ufeffone".encode("utf-16-le") + b"x")
    assert "binary" in await room.failure(EDIT, path="file", old_text="one", new_text="two")


@pytest.mark.parametrize("text", ["ab" * 150_000, "a-----\n" * 40_000, "a----\r\n" * 30_000 + "\n" * 90_000])
async def test_tens_of_thousands_of_places_are_replaced(room: Room, text: str) -> None:
    room.write("file", text)
    await room.text(EDIT, path="file", old_text="a", new_text="xyz", replace_all=True)
    assert (room.workdir / "file").read_bytes() == text.replace("a", "xyz").encode()
    assert FAMILY.roots == {}


async def test_what_would_become_too_long_is_refused(room: Room) -> None:
    room.write("file", "a" * 300_000)
    text = await room.failure(EDIT, path="file", old_text="a", new_text="b" * 100_000, replace_all=True)
    assert "nor made longer than" in text
    assert (room.workdir / "file").read_text() == "a" * 300_000


async def test_a_long_edit_that_takes_too_much_is_ended(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.write("file", "a" * 300_000)
    monkeypatch.setattr(edit, "EDIT_TIMEOUT_MS", 1)
    assert "took too long" in await room.failure(EDIT, path="file", old_text="a", new_text="b", replace_all=True)
    assert (room.workdir / "file").read_text() == "a" * 300_000
    assert FAMILY.roots == {}


async def test_a_long_edit_fails_as_a_short_one(room: Room) -> None:
    room.write("file", "a\n" * 300_000)
    assert "stands 0 times" in await room.failure(EDIT, path="file", old_text="b", new_text="c")
    assert "stands 300000 times" in await room.failure(EDIT, path="file", old_text="a", new_text="c")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\r"])
async def test_only_lf_ends_a_line(room: Room, separator: str) -> None:
    room.write("file", f"a{separator}b\nc\n")
    text = await room.text(EDIT, path="file", old_text="b", new_text="B")
    assert f"-a{separator}b\n+a{separator}B\n" in text
    assert (room.workdir / "file").read_bytes() == f"a{separator}B\nc\n".encode()


async def test_mode_and_link_stay(room: Room) -> None:
    room.write("real", "old").chmod(0o755)
    (room.workdir / "link").symlink_to("real")
    await room.text(EDIT, path="link", old_text="old", new_text="new")
    assert (room.workdir / "link").is_symlink()
    assert (room.workdir / "real").read_text() == "new"
    assert stat.S_IMODE((room.workdir / "real").stat().st_mode) == 0o755


async def test_a_long_diff_is_cut_and_kept(room: Room) -> None:
    room.write("file", "x\n" * 3000)
    result = await room.run(EDIT, path="file", old_text="x", new_text="y", replace_all=True)
    assert result.outcome == "ok"
    assert result.truncated
    assert (room.outputs / "call1.txt").read_text().count("+y\n") == 3000


async def test_what_is_not_edited(room: Room) -> None:
    room.write("binary", b"old\0")
    (room.workdir / "dir").mkdir()
    os.mkfifo(room.workdir / "fifo")
    (room.workdir / "out").symlink_to(room.outside / "x")
    os.truncate(room.write("huge", "old"), MAX_EDIT_BYTES + 1)
    for path, said in (
        ("binary", "is a binary file"),
        ("dir", "is a directory"),
        ("fifo", "is not a regular file"),
        ("missing", "No such file or directory"),
        ("out", "not open to tools"),
        ("huge", "is longer than"),
        (str(room.state / "x"), "not open to tools"),
    ):
        text = await room.failure(EDIT, path=path, old_text="old", new_text="new")
        assert said in text
        assert f'"{path}"' in text


async def test_texts_that_are_no_text(room: Room) -> None:
    room.write("file", "old")
    assert "`new_text` has a lone" in await room.failure(EDIT, path="file", old_text="old", new_text="\ud800")
    assert "only" not in await room.failure(EDIT, path="file", old_text="\ufeff", new_text="x")
    assert (room.workdir / "file").read_text() == "old"


async def test_a_change_by_somebody_else_is_not_lost(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    path = room.write("file", "old")

    def change_while_somebody_writes(data: bytes, wanted: Replacement, name: str) -> Change:
        path.write_text("old, and more")
        return change_text(data, wanted, name)

    monkeypatch.setattr(edit, "change_text", change_while_somebody_writes)
    assert "changed by somebody else" in await room.failure(EDIT, path="file", old_text="old", new_text="new")
    assert path.read_text() == "old, and more"


async def test_readers_see_the_old_file_or_the_new_one(room: Room) -> None:
    path = room.write("file", "0" * 100_000)
    seen: set[str] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(20):
        await room.text(EDIT, path="file", old_text=str(number) * 100_000, new_text=str(number + 1) * 100_000)
    stop.set()
    reader.join()
    assert seen <= {str(number) * 100_000 for number in range(21)}


async def test_bad_calls(room: Room) -> None:
    room.write("x", "old")
    for arguments in (
        {"path": "x", "old_text": "old"},
        {"path": "x", "new_text": "old"},
        {"path": "x", "old_text": "", "new_text": "a"},
        {"path": "x", "old_text": "old", "new_text": "a", "edits": []},
    ):
        assert (await EDIT.run(arguments, room.context())).outcome == "invalid_arguments"
    assert (room.workdir / "x").read_text() == "old"
