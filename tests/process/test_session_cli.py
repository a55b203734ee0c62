"""``nous session`` as a shell sees it: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import pytest

from nous.protocol.messages import Message, ToolCallBlock, ToolResultBlock
from nous.store.session_format import LeafMove
from nous.store.sessions import SessionStore
from tests.support.answers import Done, answer
from tests.support.daemon import run_nous
from tests.support.home import ROOT, Home
from tests.unit.store.helpers import NOW, append_row, compaction, spawn, verify_chain

GOLDEN: Final = Path(__file__).parent / "golden" / "session_cli.json"
SECRET: Final = "sk-abcdefghijklmnop"
COMMANDS: Final = ["list", "show", "tree", "verify", "compact", "export"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def store(home: Home) -> SessionStore:
    """A state directory with one conversation that used a tool, a branch in it, and another session."""
    assert run_nous(home, "init", "--state-dir", home.state).returncode == 0
    store = SessionStore(home.state / "sessions")
    session = store.create("ses-1", NOW)
    call = ToolCallBlock("call-1", "read", '{"path":"notes.txt"}')
    result = ToolResultBlock("call-1", "read", f"the key is {SECRET}", False)
    for entry in (
        Message(id="m1", role="user", text="Read my\nnotes\x1b[31m", created_at=at(1)),
        Message(id="m2", parent_id="m1", role="assistant", text="Let me see.", created_at=at(2), blocks=(call,)),
        Message(id="m3", parent_id="m2", role="tool_result", text=result.text, created_at=at(3), blocks=(result,)),
        Message(id="m4", parent_id="m3", role="assistant", text="There is a key.", created_at=at(4)),
        Message(id="x1", parent_id="m1", role="assistant", text="Which notes?", created_at=at(5)),
        LeafMove(id="l1", parent_id="x1", leaf_id="m4", created_at=at(6)),
    ):
        assert session.try_append(entry)
    append_row(store.branch("ses-1", "ses-2", at(7), "x1"), ["y1"])
    return store


def at(second: int) -> str:
    return f"2026-11-21T11:00:{second:02}.000Z"


GIVEN_TIMES: Final = {NOW, *map(at, range(10))}


def session(home: Home, *arguments: str | Path, **environ: str) -> Done:
    return run_nous(home, "session", *arguments, "--state-dir", home.state, environ=environ)


def lines(done: Done) -> list[str]:
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().split("\n")[:-1]


def file_of(home: Home, session_id: str = "ses-1") -> Path:
    return home.state / "sessions" / f"{session_id}.ndjson"


# -- the shape of every answer


def test_every_answer_is_the_golden_one(home: Home, store: SessionStore) -> None:
    """GOLDEN_UPDATE=1 writes the file anew."""
    answers: dict[str, Any] = {}
    for command in (
        ["list"],
        ["list", "--limit", "1"],
        ["show", "ses-1"],
        ["show", "ses-2", "--leaf", "m1"],
        ["tree", "ses-1"],
        ["verify"],
        ["compact", "ses-1", "--keep-tokens", "8", "--instruction", "the key"],
        ["compact", "ses-1", "--keep-tokens", "0", "--prune"],
        ["show", "ses-1"],
        ["tree", "ses-1"],
        ["export", "ses-2"],
        ["show", "no"],
        ["show", "ses-2", "--leaf", "no"],
        ["compact", "ses-2"],
        ["list", "--cursor", "no"],
        ["list", "--limit", "0"],
    ):
        found = answer(session(home, *command, "--json", "--correlation-id", "golden"))
        answers[" ".join(f"{len(answers) + 1:02}. nous session".split() + command)] = stable(home, found)
    text = json.dumps(answers, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("GOLDEN_UPDATE"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def stable(home: Home, value: Any, key: str = "") -> Any:
    """Put a word in the place of what differs from run to run: ids and times that were made, digests, paths."""
    if isinstance(value, dict):
        return {name: stable(home, item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [stable(home, item, key) for item in value]
    if isinstance(value, str):
        if value.startswith("ent-"):
            return "ENTRY"
        if key in ("created_at", "updated_at") and value not in GIVEN_TIMES:
            return "TIME"
        if key in ("digest", "continues") and value:
            return "DIGEST"
        return value.replace(str(home.root), "HOME")
    return value


# -- without a state directory


def test_an_absent_state_directory_is_an_empty_one(home: Home) -> None:
    assert answer(session(home, "list", "--json"))["sessions"] == []
    assert lines(session(home, "list")) == [f"no sessions in {home.state}"]
    assert answer(session(home, "verify", "--json"))["sessions"] == []
    assert lines(session(home, "verify")) == []
    for command in ("show", "tree", "compact", "export", "verify"):
        done = session(home, command, "ses-1", "--json")
        assert (done.returncode, answer(done)["error_code"]) == (6, "session_not_found")
    assert not home.state.exists()


def test_without_a_right_to_write_there_is_still_a_list(home: Home, store: SessionStore) -> None:
    """Nothing depends on the index."""
    for number in range(70):
        store.create(f"more-{number}", NOW)
    (home.state / "sessions" / ".sessions.lock").mkdir()
    assert len(answer(session(home, "list", "--limit", "500", "--json"))["sessions"]) == 72


# -- list


def test_the_list_is_a_table(home: Home, store: SessionStore) -> None:
    shown = lines(session(home, "list"))
    assert shown[0].split() == ["SESSION", "CHANGED", "MESSAGES", "BEGINS"]
    assert shown[1] == f"ses-1  {at(6)}         5  Read my notes\\x1b[31m"
    assert shown[2].startswith(f"ses-2  {NOW}         3  Read my notes")
    shown = lines(session(home, "list", "--limit", "1"))
    assert shown[2] == f"more: --cursor '{at(6)}~ses-1'"
    shown = lines(session(home, "list", "--cursor", f"{at(6)}~ses-1"))
    assert [line.split()[0] for line in shown[1:]] == ["ses-2"]


# -- show and tree


def test_a_conversation_can_be_read(home: Home, store: SessionStore) -> None:
    shown = lines(session(home, "show", "ses-1"))
    assert shown == [
        "ses-1",
        "leaf m4, a model sees 4 messages, about 39 tokens",
        "",
        f"user  m1  {at(1)}",
        "  Read my",
        "  notes\\x1b[31m",
        "",
        f"assistant  m2  {at(2)}",
        "  Let me see.",
        '  calls read  {"path":"notes.txt"}',
        "",
        f"tool_result  m3  {at(3)}",
        f"  the key is {SECRET}",
        "",
        f"assistant  m4  {at(4)}",
        "  There is a key.",
    ]
    assert "branched from ses-1" in lines(session(home, "show", "ses-2"))[1]
    assert lines(session(home, "show", "ses-1", "--leaf", "x1"))[-1] == "  Which notes?"


def test_a_summary_stands_where_it_stands_for_the_model(home: Home, store: SessionStore) -> None:
    store.get("ses-1").try_append(compaction("k1", "m4", "m4", "In short:\nnotes."))
    shown = lines(session(home, "show", "ses-1"))
    place = shown.index("summary  deterministic, manual; all before stands for the model in this")
    assert shown[place + 1 : place + 5] == ["  In short:", "  notes.", "", f"assistant  m4  {at(4)}"]
    store.get("ses-1").try_append(compaction("k2", "m4", "", "Nothing kept."))
    shown = lines(session(home, "show", "ses-1"))
    assert shown[2:5] == [
        "",
        "summary  deterministic, manual; all before stands for the model in this",
        "  Nothing kept.",
    ]


def test_a_tree_shows_branches_and_the_leaf(home: Home, store: SessionStore) -> None:
    store.get("ses-1").try_append(compaction("k1", "m4", "m4"))
    assert lines(session(home, "tree", "ses-1")) == [
        "ses-1",
        "- user  Read my notes\\x1b[31m  m1",
        "  - assistant  Which notes?  x1",
        "- assistant  Let me see. calls read  m2",
        f"- read  the key is {SECRET}  m3",
        "* assistant  There is a key.  m4",
        "~ compacted (deterministic, manual): summary k1",
    ]


# -- verify


def test_an_edited_byte_is_named(home: Home, store: SessionStore) -> None:
    assert [line.split()[:2] for line in lines(session(home, "verify"))] == [
        ["ok", "ses-1.ndjson"],
        ["ok", "ses-2.ndjson"],
    ]
    path = file_of(home)
    data = path.read_bytes()
    at_byte = data.index(b"Let me see")
    path.write_bytes(data[:at_byte] + b"B" + data[at_byte + 1 :])
    offset = data.rindex(b"\n", 0, at_byte) + 1
    for sources in ([], ["ses-1"], [path], ["ses-2", "ses-1"]):
        done = session(home, "verify", *sources)
        assert (done.returncode, done.stderr) == (2, b"")
        assert f"     line 3, byte {offset}: damaged: its digest does not fit its bytes\n".encode() in done.stdout
        found = answer(session(home, "verify", *sources, "--json"))
        assert (found["error_code"], found["error_category"]) == ("verification_failed", "verification_failed")
        [bad] = [report for report in found["sessions"] if not report["ok"]]
        assert (bad["file"], bad["damage"]["line"], bad["damage"]["offset"]) == ("ses-1.ndjson", 3, offset)
    assert session(home, "verify", "ses-2").returncode == 0
    for command in ("show", "tree", "compact", "export"):
        done = session(home, command, "ses-1", "--json")
        assert (done.returncode, answer(done)["error_code"]) == (2, "session_corrupt")
    assert len(answer(session(home, "list", "--json"))["sessions"]) == 2


def test_a_torn_tail_is_named_and_stays(home: Home, store: SessionStore) -> None:
    path = file_of(home)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'{"type"')
    done = session(home, "verify", "ses-1")
    assert done.returncode == 0
    assert f"     line 8, byte {size}: torn: 7 bytes without an end of line\n".encode() in done.stdout
    assert path.stat().st_size == size + 7


# -- compact


def test_compacting_and_pruning(home: Home, store: SessionStore) -> None:
    done = session(home, "compact", "ses-1")
    assert (done.returncode, done.stdout) == (6, b"")
    assert b"nothing_to_compact" in done.stderr
    before = file_of(home).read_bytes()
    assert lines(session(home, "compact", "ses-1", "--keep-tokens", "0", "--instruction", "the key"))[0].startswith(
        "compacted: about 39 tokens before, "
    )
    entry = verify_chain(file_of(home))[-1]
    assert file_of(home).read_bytes().startswith(before)
    assert (entry["by"], entry["trigger"], entry["parent_id"], entry["instruction"]) == (
        "deterministic",
        "manual",
        "m4",
        "the key",
    )
    assert entry["summary"].startswith("What matters: the key\n\nFiles: notes.txt\n\n- User: Read my notes")
    again = SessionStore(home.state / "sessions").get("ses-1")
    assert (len(again.path()), again.leaf_id, len(again.full_path())) == (1, "m4", 4)
    assert lines(session(home, "compact", "ses-1", "--prune"))[0].startswith("pruned: 3 messages, ")
    again = SessionStore(home.state / "sessions").get("ses-1")
    assert (again.leaf_id, list(again.messages)) == ("m4", ["m1", "x1"]), "the other branch needs m1"
    append_row(again, ["m5"])
    assert session(home, "verify", "ses-1").returncode == 0
    shown = lines(session(home, "show", "ses-1"))
    assert shown[2] == "(older messages were pruned)"
    assert shown[-1] == "  m5"


def test_the_newest_are_retained(home: Home, store: SessionStore) -> None:
    found = answer(session(home, "compact", "ses-2", "--keep-tokens", "0", "--prune", "--retain", "1", "--json"))
    assert found["pruned"]["removed_messages"] == 2
    assert found["compaction"]["tokens_before"] > 0
    assert list(SessionStore(home.state / "sessions").get("ses-2").messages) == ["y1"]


def test_what_a_crash_cut_is_reported(home: Home, store: SessionStore) -> None:
    with file_of(home).open("ab") as file:
        file.write(b"torn")
    done = session(home, "compact", "ses-1", "--keep-tokens", "0")
    assert done.returncode == 0
    assert done.stderr == f"nous: a line that was cut off was kept aside: {file_of(home)}.torn-1\n".encode()


def test_a_held_session_is_contention(home: Home, store: SessionStore) -> None:
    with spawn("lock_holder.py", str(file_of(home).with_suffix(".lock"))) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        done = session(home, "compact", "ses-1", "--keep-tokens", "0", "--json", NOUS_SESSION_LOCK_TIMEOUT_MS="20")
        holder.kill()
    found = answer(done)
    assert (done.returncode, found["error_code"], found["retryable"]) == (1, "state_contention", True)


# -- export


def test_an_export_holds_the_conversation_without_secrets(home: Home, store: SessionStore) -> None:
    store.get("ses-1").try_append(compaction("k1", "m4", "m4", f"It was {SECRET}."))
    done = session(home, "export", "ses-1")
    path = home.state / "exports" / "ses-1.session.ndjson"
    assert lines(done) == [str(path)]
    assert path.stat().st_mode & 0o777 == 0o600
    data = path.read_bytes()
    assert SECRET.encode() not in data
    head, *messages = map(json.loads, data.decode().split("\n")[:-1])
    assert (head["type"], head["session_id"], head["leaf_id"], head["messages"]) == ("session.export", "ses-1", "m4", 4)
    assert head["compaction"]["summary"].startswith("It was [REDACTED")
    assert [message["id"] for message in messages] == ["m1", "m2", "m3", "m4"]
    assert messages[1]["blocks"][0]["name"] == "read"
    streamed = session(home, "export", "ses-1", "-o", "-")
    assert (streamed.returncode, streamed.stdout, streamed.stderr) == (0, data, b"")
    raw = session(home, "export", "ses-1", "-o", "raw.ndjson", "--redact", "none", "--leaf", "m3", "--json")
    assert answer(raw)["path"] == str(home.workdir / "raw.ndjson")
    assert (home.workdir / "raw.ndjson").read_bytes().count(SECRET.encode()) == 2


def test_what_the_environment_holds_is_not_exported(home: Home, store: SessionStore) -> None:
    append_row(store.get("ses-1"), ["correct-horse"])
    out = session(home, "export", "ses-1", "-o", "-", DB_PASSWORD="There is a").stdout
    assert b"There is a" not in out


# -- the command line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["none"],
        ["show"],
        ["show", "a", "b"],
        ["show", "../x"],
        ["list", "--limit", "many"],
        ["list", "--limit", "501"],
        ["compact", "a", "--keep-tokens", "-1"],
        ["compact", "a", "--retain", "-1"],
        ["export", "a", "--redact", "some"],
        ["verify", "no/such/file"],
    ],
)
def test_a_wrong_command_line_is_an_answer_too(home: Home, arguments: list[str]) -> None:
    done = run_nous(home, "session", *arguments, "--json")
    assert done.returncode == 6
    assert answer(done)["error_code"] in ("invalid_usage", "session_not_found")
    plain = run_nous(home, "session", *arguments)
    assert (plain.returncode, plain.stdout) == (6, b"")
    assert plain.stderr.startswith(b"nous: ")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(home: Home, command: str) -> None:
    done = run_nous(home, "session", *([command] if command else []), "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(f"usage: nous session {command}".rstrip().encode())


def test_every_command_is_in_the_help_and_in_the_docs() -> None:
    text = (ROOT / "docs" / "sessions.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"nous session {command}" in text
