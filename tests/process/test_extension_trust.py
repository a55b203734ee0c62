"""Trust in a project's extensions: a guard that was trusted cannot be switched off, and only what was trusted runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nous.config.provider import KEY_VARIABLES
from nous.config.settings import ExtensionsSettings
from nous.errors import NousError
from nous.extensions.clearance import clear
from nous.extensions.copies import KEPT_COPIES, copy_extension
from nous.extensions.discovery import look_at
from nous.extensions.lapsed import find_lapsed
from nous.system.trust import TrustStore
from tests.support.answers import answer
from tests.support.daemon import run_nous
from tests.support.extension_programs import ANSWERING, write_extension
from tests.support.harness import open_peer
from tests.support.home import Home, Setup
from tests.support.lines import of_type

pytestmark = pytest.mark.anyio

BASH: list[list[object]] = [
    [{"tool_call": {"name": "bash", "arguments": {"command": "touch ran"}, "id": "c1"}}],
    [{"text": "Done."}],
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    run_nous(made, "init", "--state-dir", made.state).check_returncode()
    return made


def projects(home: Home) -> Path:
    return home.workdir / ".nous" / "extensions"


def ext_trust(home: Home, directory: Path, *more: str) -> dict[str, Any]:
    done = run_nous(home, "ext", "trust", directory, "--state-dir", home.state, "--json", *more)
    return answer(done)


# -- a guard that has changed


def edit(directory: Path) -> None:
    (directory / "main.py").write_text("raise SystemExit", encoding="utf-8")


def unhook(directory: Path) -> None:
    write_extension(directory.parent, "guard", ANSWERING)


def break_manifest(directory: Path) -> None:
    (directory / "extension.yaml").write_text("hooks: [", encoding="utf-8")


def rename(directory: Path) -> None:
    write_extension(directory.parent, "aaa", ANSWERING)
    manifest = directory.parent / "aaa" / "extension.yaml"
    manifest.write_text(manifest.read_text("utf-8").replace('"aaa"', '"guard"'), encoding="utf-8")


def remove(directory: Path) -> None:
    shutil.rmtree(directory)


def remove_all(directory: Path) -> None:
    shutil.rmtree(directory.parent.parent)


@pytest.mark.parametrize("change", [edit, unhook, break_manifest, rename, remove, remove_all])
async def test_a_trusted_guard_that_changed_blocks_until_it_is_trusted_again(
    home: Home, change: Callable[[Path], None]
) -> None:
    directory = write_extension(projects(home), "guard", hooks=["tool_call"])
    assert ext_trust(home, directory)["state"] == "trusted"
    change(directory)
    async with open_peer("stdio", home, Setup(script=BASH)) as peer:
        refused = await peer.events_until("status", code="extension_refused")
        assert refused[-1].payload["extension"] in ("guard", "aaa")
        run = await peer.run("go")
        [end] = of_type(run, "tool_execution_end")
        assert end.payload["result"].startswith("Blocked: the extension guard could not be asked: ")
        assert f"nous ext trust --forget {directory}" in end.payload["result"]
        infos = {info["name"]: info for info in (await peer.ok("get_state"))["extensions"]}
        assert infos["guard"]["state"] == "down"
    assert not (home.workdir / "ran").exists()
    assert ext_trust(home, directory, "--forget")["state"] == "forgotten"
    async with open_peer("stdio", home, Setup(script=BASH)) as peer:
        await peer.run("go")
    assert (home.workdir / "ran").exists()


def link_one(home: Home, elsewhere: Path) -> Path:
    directory = write_extension(elsewhere, "guard", hooks=["tool_call"])
    projects(home).mkdir(parents=True)
    (projects(home) / "linked").symlink_to(directory)
    return projects(home) / "linked"


def link_all(home: Home, elsewhere: Path) -> Path:
    write_extension(elsewhere, "guard", hooks=["tool_call"])
    projects(home).parent.mkdir(parents=True)
    projects(home).symlink_to(elsewhere)
    return projects(home)


@pytest.mark.parametrize("link", [link_one, link_all])
@pytest.mark.parametrize("trusts_link", [True, False])
async def test_a_guard_behind_a_link_blocks_once_the_link_is_removed(
    home: Home, link: Callable[[Home, Path], Path], trusts_link: bool
) -> None:
    elsewhere = home.root / "elsewhere"
    removed = link(home, elsewhere)
    directory = elsewhere / "guard"
    name = "linked" if link is link_one else "guard"
    given = projects(home) / name if trusts_link else directory
    assert ext_trust(home, given, "--workdir", str(home.workdir))["state"] == "trusted"
    listed = answer(run_nous(home, "ext", "list", "--state-dir", home.state, "--json"))["extensions"]
    assert [(one["name"], one["state"]) for one in listed] == [("guard", "ready")]
    removed.unlink()
    [one] = answer(run_nous(home, "ext", "list", "--state-dir", home.state, "--json"))["extensions"]
    assert (one["name"], one["state"], one["hooks"]) == ("guard", "removed", ["tool_call"])
    assert f"{projects(home) / name} was removed since it was trusted" in one["error"]
    async with open_peer("stdio", home, Setup(script=BASH)) as peer:
        [end] = of_type(await peer.run("go"), "tool_execution_end")
        assert end.payload["result"].startswith("Blocked: the extension guard could not be asked: ")
    assert not (home.workdir / "ran").exists()
    assert ext_trust(home, directory, "--forget")["state"] == "forgotten"
    assert answer(run_nous(home, "ext", "list", "--state-dir", home.state, "--json"))["extensions"] == []


EDITS: dict[str, dict[str, object]] = {
    "write": {"path": ".nous/extensions/guard/main.py", "content": "raise SystemExit"},
    "edit": {"path": ".nous/extensions/guard/main.py", "old_text": ANSWERING, "new_text": "raise SystemExit"},
    "bash": {"command": "rm -r .nous"},
}


@pytest.mark.full
@pytest.mark.parametrize("tool", EDITS)
async def test_the_model_cannot_switch_a_guard_off_by_its_own_edit(home: Home, tool: str) -> None:
    directory = write_extension(projects(home), "guard", hooks=["tool_call"])
    ext_trust(home, directory)
    call = {"name": tool, "arguments": EDITS[tool], "id": "c0"}
    async with open_peer("stdio", home, Setup(script=[[{"tool_call": call}], [{"text": "Done."}]])) as peer:
        [end] = of_type(await peer.run("go"), "tool_execution_end")
        assert not end.payload["is_error"]
    async with open_peer("stdio", home, Setup(script=BASH)) as peer:
        [end] = of_type(await peer.run("go"), "tool_execution_end")
        assert end.payload["is_error"]
    assert not (home.workdir / "ran").exists()


async def test_a_guard_that_was_never_trusted_is_not_started_and_blocks_nothing(home: Home) -> None:
    write_extension(projects(home), "guard", "open('/proc/self/fd/2', 'w').write('started')", hooks=["tool_call"])
    async with open_peer("stdio", home, Setup(script=BASH)) as peer:
        refused = await peer.events_until("status", code="extension_refused")
        assert "is not trusted" in refused[-1].payload["message"]
        [end] = of_type(await peer.run("go"), "tool_execution_end")
        assert not end.payload["is_error"]
    assert (home.workdir / "ran").exists()
    assert not (home.state / "extensions").exists()


async def test_a_guard_that_changes_while_it_runs_goes_on_as_trusted_and_is_not_started_again(home: Home) -> None:
    """Its process runs from the copy; after its end the change counts."""
    body = "for call in calls():\n    result(call, block='as trusted')\n    break"
    directory = write_extension(projects(home), "guard", body, hooks=["tool_call"])
    ext_trust(home, directory)
    async with open_peer("stdio", home, Setup(script=[*BASH, *BASH])) as peer:
        await peer.refused("extension_command", {"name": "nobody-has-it"})
        edit(directory)
        [first] = of_type(await peer.run("go"), "tool_execution_end")
        assert first.payload["result"] == "Blocked: as trusted"
        [second] = of_type(await peer.run("go"), "tool_execution_end")
        assert "has changed since it was trusted" in second.payload["result"]
        assert second.payload["is_error"]
    assert not (home.workdir / "ran").exists()


# -- the copies


def gc_later(home: Home) -> subprocess.CompletedProcess[bytes]:
    """Collect garbage as if all copies had been made two hours ago."""
    then = time.time() - 7200
    for path in (home.state / "extensions").glob("*/*"):
        os.utime(path, (then, then))
    return run_nous(home, "gc", "--state-dir", home.state, "--json")


async def test_gc_removes_copies_that_nobody_trusts_but_none_that_a_daemon_runs(home: Home) -> None:
    directory = write_extension(projects(home), "one", hooks=["turn_end"])
    ext_trust(home, directory)
    [old] = (home.state / "extensions").glob("*/*")
    async with open_peer("stdio", home) as peer:
        await peer.refused("extension_command", {"name": "nobody-has-it"})
        edit(directory)
        ext_trust(home, directory)
        assert answer(gc_later(home))["extension_copies"] == []
        assert old.is_dir()
    dry = answer(run_nous(home, "gc", "--state-dir", home.state, "--json", "--dry-run"))["extension_copies"]
    assert answer(gc_later(home))["extension_copies"] == dry == [str(old.relative_to(home.state))]
    [new] = old.parent.iterdir()
    assert "raise SystemExit" in (new / "main.py").read_text("utf-8")


def test_what_only_warned_only_warns(tmp_path: Path) -> None:
    workdir, state = tmp_path / "work", tmp_path / "state"
    state.mkdir()
    directory = write_extension(workdir / ".nous" / "extensions", "one", hooks=["tool_result", "turn_end", "tool_call"])
    store = TrustStore(state)
    store.trust(directory, "other", (directory / "extension.yaml").read_bytes())

    def lapsed(**settings: Any) -> dict[str, str]:
        fault = NousError("unsafe_operation", "changed")
        found = find_lapsed(workdir, store, ExtensionsSettings(**settings), set(), {directory: fault})
        return {hook: meaning for one in found for hook, meaning in one.on_failure.items()}

    assert lapsed() == {"tool_result": "warn", "tool_call": "block"}
    assert lapsed(on_failure={"one": "block"}) == {"tool_result": "block", "tool_call": "block"}
    assert lapsed(skip=("one",)) == {}
    store.trust(directory, "other")
    assert lapsed() == {"tool_call": "block"}, "trusted by a version that kept no manifest"


# -- what runs is what was trusted


def test_what_runs_is_what_was_digested_whatever_is_swapped_meanwhile(tmp_path: Path) -> None:
    """Manifest and program are swapped all the time; what is cleared is always the trusted pair."""
    state = tmp_path / "state"
    state.mkdir()
    good = write_extension(tmp_path / "good", "one", "GOOD = 1")
    evil = write_extension(tmp_path / "evil", "one", "EVIL = 1", priority=7)
    directory = tmp_path / "one"
    shutil.copytree(good, directory)
    copy = copy_extension(directory, state)
    TrustStore(state).trust(directory, copy.digest, b"")
    trusted = {path.name: path.read_bytes() for path in copy.directory.iterdir()}
    is_over = threading.Event()

    def swap() -> None:
        while not is_over.is_set():
            for source in (evil, good):
                for name in trusted:
                    shutil.copy(source / name, tmp_path / "next")
                    (tmp_path / "next").replace(directory / name)

    thread = threading.Thread(target=swap)
    thread.start()
    cleared = 0
    try:
        for _ in range(60):
            shutil.rmtree(state / "extensions", ignore_errors=True)
            try:
                one = clear(look_at(directory, "project"), state)
            except NousError:
                continue
            cleared += 1
            assert {path.name: path.read_bytes() for path in one.directory.iterdir()} == trusted
            assert one.manifest.priority == 100
    finally:
        is_over.set()
        thread.join()
    shutil.rmtree(state / "extensions", ignore_errors=True)
    for name in trusted:
        shutil.copy(good / name, directory / name)
    assert clear(look_at(directory, "project"), state).manifest.priority == 100


def test_a_copy_is_the_tree_and_old_copies_go(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    directory = write_extension(tmp_path, "one")
    (directory / "sub" / "empty").mkdir(parents=True)
    (directory / "sub" / "run.sh").write_text("exit", encoding="utf-8")
    (directory / "sub" / "run.sh").chmod(0o755)
    (directory / "near").symlink_to("sub/run.sh")
    (directory / "far").symlink_to(directory / "sub" / "run.sh")
    copy = copy_extension(directory, state).directory
    assert {str(path.relative_to(copy)) for path in copy.rglob("*")} == {
        str(path.relative_to(directory)) for path in directory.rglob("*")
    }
    for name in ("near", "far"):
        assert (copy / name).resolve() == copy / "sub" / "run.sh"
    assert os.access(copy / "sub" / "run.sh", os.X_OK)
    for number in range(2 * KEPT_COPIES):
        (directory / "main.py").write_text(str(number), encoding="utf-8")
        last = copy_extension(directory, state).directory
        assert (last / "main.py").read_text("utf-8") == str(number)
    assert len(list(last.parent.iterdir())) == KEPT_COPIES


@pytest.mark.parametrize(
    "command",
    [
        ["bash", "../../outside.sh"],
        ["{python}", "OUTSIDE"],
        ["OUTSIDE"],
        ["bash", "--rcfile=OUTSIDE", "main.py"],
        ["bash", ".."],
        ["bash", "link.sh"],
    ],
)
def test_a_command_names_no_file_outside_the_directory(home: Home, command: list[str]) -> None:
    outside = projects(home).parent / "outside.sh"
    directory = write_extension(projects(home), "one", command=[w.replace("OUTSIDE", str(outside)) for w in command])
    outside.write_text("exit", encoding="utf-8")
    if "link.sh" in command:
        (directory / "link.sh").symlink_to(outside)
    found = ext_trust(home, directory)
    assert found["error_code"] == "unsafe_operation"
    assert TrustStore(home.state).records() == []


async def test_a_program_of_the_system_may_be_named_by_its_path(home: Home) -> None:
    shell = shutil.which("sh", path="/bin:/usr/bin")
    assert shell is not None
    hello = json.dumps({"type": "hello", "protocol": "1", "name": "one", "version": "1"})
    directory = write_extension(projects(home), "one", command=[shell, "-c", f"echo '{hello}'; cat >/dev/null"])
    assert ext_trust(home, directory)["state"] == "trusted"
    async with open_peer("stdio", home) as peer:
        await peer.run("go")
        [info] = (await peer.ok("get_state"))["extensions"]
        assert info["state"] == "up"


# -- what it gets


async def test_no_extension_gets_a_vendor_s_key(home: Home) -> None:
    names = sorted({*KEY_VARIABLES.values(), "MINE", "CONFIGURED"})
    body = "for call in calls(): result(call, text=json.dumps(sorted(os.environ)))"
    directory = write_extension(projects(home), "one", body, tools=["look"], env=names)
    config = home.root / "config.yaml"
    config.write_text("providers: {openai: {api_key_env: CONFIGURED}}", encoding="utf-8")
    found = ext_trust(home, directory, "--config", str(config))
    assert found["env"] == ["MINE"]
    assert found["withheld"] == [name for name in names if name != "MINE"]
    environ = dict.fromkeys(names, "sk-not-a-real-key-0123456789")
    script = [[{"tool_call": {"name": "look", "arguments": {}, "id": "c1"}}], [{"text": "Done."}]]
    setup = Setup(script=script, environ=environ, flags=("--config", str(config)))
    async with open_peer("stdio", home, setup) as peer:
        [end] = of_type(await peer.run("go"), "tool_execution_end")
    assert "MINE" in end.payload["result"]
    assert not [name for name in names if name != "MINE" and f'"{name}"' in end.payload["result"]]


def test_trust_shows_all_that_runs_and_is_passed_escaped(home: Home) -> None:
    command = ["{python}", "main.py", "two words", "\x1b[2K\u202ehidden"]
    directory = write_extension(
        projects(home), "one", hooks=["tool_call"], env=["MINE", "OPENAI_API_KEY"], command=command
    )
    done = run_nous(home, "ext", "trust", directory, "--state-dir", home.state)
    assert done.stdout.decode().splitlines() == [
        r"one may run: '{python}' main.py 'two words' '\x1b[2K\u202ehidden'",
        "hooks: tool_call",
        "gets the variables: MINE",
        "does not get, they hold keys: OPENAI_API_KEY",
        f"trusted: {directory}",
    ]
