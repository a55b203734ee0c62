"""One extension, real children: what a call comes to when the child does as it should, and when it does not."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from nous.extensions.extension import Extension, ExtensionFailedError
from nous.extensions.pending import CallFailedError, Question
from nous.extensions.wire import CallKind, ResultLine
from nous.system import procfs
from tests.support.extension_programs import ANSWERING, FIXTURES, running, write_extension
from tests.support.raw import until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")


def as_it_is(result: ResultLine) -> ResultLine:
    return result


def read_hook(result: ResultLine) -> dict[str, Any]:
    if result.error is not None:
        raise CallFailedError("extension_error", result.error)
    return result.value


def question(
    kind: CallKind, name: str, given: Any, read: Callable[[ResultLine], Any] = read_hook, **more: Any
) -> Question[Any]:
    return Question(kind=kind, name=name, given=given, context={}, read=read, **{"timeout_ms": 20_000, **more})


async def ask(extension: Extension, given: Any = None, timeout_ms: int = 20_000) -> dict[str, Any]:
    answer: dict[str, Any] = await extension.call(question("hook", "run_start", given or {}, timeout_ms=timeout_ms))
    return answer


async def fail(extension: Extension, given: Any = None, timeout_ms: int = 20_000) -> ExtensionFailedError:
    with pytest.raises(ExtensionFailedError) as caught:
        await ask(extension, given, timeout_ms)
    return caught.value


def make(tmp_path: Path, body: str, **manifest: Any) -> Path:
    return write_extension(tmp_path, "one", body, hooks=["run_start"], **manifest)


def state_of(extension: Extension) -> str:
    return extension.state


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def is_gone(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is None or stat.is_dead


# -- as it should be


async def test_the_example_in_python() -> None:
    pieces: list[str] = []

    async def progress(text: str) -> None:
        pieces.append(text)

    async with running(FIXTURES / "words") as words:
        ask_words = partial(question, "tool", "count_words", read=as_it_is)
        counted = await words.call(ask_words({"text": "one two two"}, progress=progress))
        assert counted.value == {"text": "3 words"}
        assert "".join(pieces) == "1: one\n2: two\n3: two\n"
        assert (await words.call(ask_words({"text": "one", "least": 2}))).error == "only 1 words"
        assert "TypeError" in (await words.call(ask_words({}))).error
        common = await words.call(question("command", "most_common", {"limit": 1}))
        assert common == {"words": [["one", 2]]}
        given = {"tool_name": "count_words", "text": "3 words"}
        changed = await words.call(question("hook", "tool_result", given))
        assert changed == {"text": "3 words (counted by an extension)"}
        assert await words.call(question("hook", "tool_result", {"tool_name": "read"})) == {}
        assert words.version == "1.0"
        assert words.state == "up"
        assert (words.restarts, words.consecutive_failures, words.late_answers) == (0, 0, 0)


async def test_the_example_in_bash() -> None:
    async with running(FIXTURES / "no-deletes") as guard:
        blocked = await guard.call(question("hook", "tool_call", {"arguments": {"command": "rm -rf /"}}))
        assert blocked == {"block": "nothing is deleted recursively here"}
        assert await guard.call(question("hook", "tool_call", {"arguments": {"command": "ls"}})) == {}


@needs_node
async def test_the_example_in_node() -> None:
    async with running(FIXTURES / "shout") as shout:
        assert await shout.call(question("tool", "shout", {"text": "hey"})) == {"text": "HEY!"}
        assert await shout.call(question("hook", "input", {"text": "hey"})) == {"text": "hey!"}
        assert await shout.call(question("hook", "input", {"text": "hey?"})) == {}
        assert await shout.call(question("command", "volume", {})) == {"level": 11}
        assert "TypeError" in (await shout.call(question("tool", "shout", {}, as_it_is))).error


async def test_calls_run_side_by_side_up_to_their_number(tmp_path: Path) -> None:
    body = """
held = []
for call in calls():
    held.append(call)
    if len(held) == 2:
        for one in reversed(held): result(one, held=len(held), given=one["input"])
        held.clear()
"""
    async with running(make(tmp_path, body, max_concurrency=2)) as extension:
        answers: list[dict[str, Any]] = []

        async def call(number: int) -> None:
            answers.append(await ask(extension, number))

        async with anyio.create_task_group() as tasks:
            for number in range(1, 5):
                tasks.start_soon(call, number)
        assert sorted(answer["given"] for answer in answers) == [1, 2, 3, 4]
        assert all(answer["held"] == 2 for answer in answers)


# -- as it should not be

FORKING = """
for call in calls():
    while True: subprocess.Popen(["sleep", "1000"])
"""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("for call in calls(): os.write(1, b'garbage\\n')", "broke the host protocol: not JSON"),
        ("for call in calls(): send(type='nonsense')", "broke the host protocol"),
        ("for call in calls(): send(type='result', id=5)", "broke the host protocol"),
        ("for call in calls(): send(type='hello', protocol='1', name='one', version='1')", "a second hello"),
        ("for call in calls(): os.close(1); time.sleep(1000)", "closed its stdout"),
        ("for call in calls(): os._exit(7)", "exited with code 7"),
        (FORKING, "max_processes"),
        ("for call in calls():\n    while True: os.write(1, b'x' * 65536)", "a line of more than 1048576 bytes"),
        (
            "for call in calls():\n    while True: send(type='progress', id=call['id'], text='x' * 1000)",
            "more than 1048576 bytes in answer to one call",
        ),
        ("for call in calls():\n    while True: send(type='log', message='x' * 1000)", "too much that nobody asked"),
        ("for call in calls():\n    while True: result(call)", None),
        ("for call in calls(): a = [b'x' * (8 << 20) for _ in range(1000)]; time.sleep(1000)", "memory_mb"),
        ("for call in calls():\n    while True: pass", "cpu_seconds"),
        (
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nfor call in calls(): os.close(1)\ntime.sleep(1000)",
            "closed its stdout",
        ),
    ],
)
async def test_a_breach_ends_it_and_the_next_call_meets_a_new_one(
    tmp_path: Path, body: str, reason: str | None
) -> None:
    once = (
        "if os.path.exists(sys.argv[1]):\n    for call in calls(): result(call, again=True)\nopen(sys.argv[1], 'w')\n"
    )
    directory = make(
        tmp_path,
        once + body,
        command=["{python}", "main.py", str(tmp_path / "ran")],
        memory_mb=64,
        cpu_seconds=1,
        max_processes=8,
    )
    async with running(directory) as extension:
        await extension.start()
        pid = extension.pid
        assert pid is not None
        if reason is None:
            await ask(extension)
        else:
            failed = await fail(extension)
            assert reason in failed.reason
            assert failed.code == "extension_error"
            assert failed.consecutive_failures == 1
        await until(partial(is_gone, pid))
        assert await ask(extension) == {"again": True}
        assert extension.restarts == 1
        assert extension.consecutive_failures == 0


@pytest.mark.parametrize(
    "number", [s for s in signal.Signals if s not in (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)]
)
async def test_dying_by_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    body = """
for call in calls():
    number = call["input"]["number"]
    if number not in (signal.SIGKILL, signal.SIGSTOP): signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
"""
    async with running(make(tmp_path, body)) as extension:
        await extension.start()
        stops = number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
        failed = await fail(extension, {"number": int(number)}, 300 if stops else 20_000)
        assert failed.reason == ("no answer within 300 ms" if stops else f"it died by {number.name}")


async def test_a_timeout_is_cancelled_and_a_late_answer_dropped(tmp_path: Path) -> None:
    body = """
for raw in iter(sys.stdin.buffer.readline, b""):
    line = json.loads(raw)
    if line["type"] == "cancel": result(line, late=True); result(line, late=True)
    elif line["input"].get("answer"): result(line, reason="soon")
"""
    async with running(make(tmp_path, body)) as extension:
        await extension.start()
        failed = await fail(extension, {}, 100)
        assert (failed.code, failed.timeout_ms, failed.consecutive_failures) == ("extension_timeout", 100, 1)
        assert failed.elapsed_ms >= 99
        assert await ask(extension, {"answer": True}) == {"reason": "soon"}
        assert extension.late_answers == 2
        assert extension.restarts == 0
        assert extension.consecutive_failures == 0


async def test_one_that_sleeps_for_ever_is_replaced(tmp_path: Path) -> None:
    body = "for call in calls():\n    if call['input'].get('sleep'): time.sleep(1000)\n    result(call)"
    async with running(make(tmp_path, body)) as extension:
        await extension.start()
        pid = extension.pid
        assert pid is not None
        assert (await fail(extension, {"sleep": True}, 100)).code == "extension_timeout"
        await until(partial(is_gone, pid))
        assert await ask(extension) == {}
        assert extension.restarts == 1


async def test_three_failures_disable_it_and_one_success_enables_it_again(tmp_path: Path) -> None:
    body = """
for call in calls():
    send(type="result", id=call["id"], **({"error": "no"} if call["input"].get("no") else {}))
"""
    async with running(make(tmp_path, body, cooldown_ms=200)) as extension:
        failures = [await fail(extension, {"no": True}) for _ in range(3)]
        assert [f.code for f in failures] == ["extension_error"] * 3
        assert [f.disables for f in failures] == [False, False, True]
        assert [f.consecutive_failures for f in failures] == [1, 2, 3]
        assert state_of(extension) == "disabled"
        refused = await fail(extension)
        assert (refused.code, refused.elapsed_ms, refused.disables) == ("extension_disabled", 0, False)
        with anyio.fail_after(20):
            while extension.state == "disabled":
                try:
                    assert await ask(extension) == {}
                except ExtensionFailedError as error:
                    assert error.code == "extension_disabled"  # noqa: PT017
                    await anyio.lowlevel.checkpoint()
        assert state_of(extension) == "up"
        assert extension.consecutive_failures == 0


async def test_it_does_not_say_hello(tmp_path: Path) -> None:
    directory = make(tmp_path, "", start_timeout_ms=200)
    (directory / "main.py").write_text("import time; time.sleep(1000)", encoding="utf-8")
    async with running(directory) as extension:
        failed = await fail(extension)
        assert "did not say hello within 200 ms" in failed.reason
        assert extension.consecutive_failures == 1
        assert "hello" in extension.last_error


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "other"}, "does not have the name of its manifest"),
        ({"command": ["no-such-program"]}, "could not be started"),
        ({"hooks": ["input"]}, "its hooks are not those of its manifest"),
    ],
)
async def test_it_cannot_be_started(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    directory = make(tmp_path, "")
    manifest = directory / "extension.yaml"
    manifest.write_text(json.dumps({**json.loads(manifest.read_bytes()), **change}), encoding="utf-8")
    async with running(directory) as extension:
        assert reason in (await fail(extension)).reason


async def test_an_aborted_call_is_cancelled_and_counts_for_nothing(tmp_path: Path) -> None:
    body = """
for raw in iter(sys.stdin.buffer.readline, b""):
    line = json.loads(raw)
    open(sys.argv[1] + line["type"], "w").write(line.get("reason", ""))
    if line["type"] == "cancel": break
"""
    called, noted = tmp_path / "call", tmp_path / "cancel"
    async with running(make(tmp_path, body, command=["{python}", "main.py", f"{tmp_path}/"])) as extension:
        await extension.start()
        pid = extension.pid
        assert pid is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, extension)
            await until(called.exists)
            tasks.cancel_scope.cancel()
        await until(partial(is_gone, pid))
        assert noted.read_text(encoding="utf-8") == "aborted"
        assert extension.consecutive_failures == 0


async def test_nothing_is_left_when_it_ends(tmp_path: Path) -> None:
    body = """
subprocess.Popen(["setsid", "sleep", "1000"])
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for call in calls(): result(call)
time.sleep(1000)
"""
    before = open_descriptors()
    async with running(make(tmp_path, body)) as extension:
        await ask(extension)
        pid = extension.pid
        assert pid is not None
    assert procfs.read_stat(pid) is None
    assert open_descriptors() <= before


async def test_a_call_that_cannot_be_written_leaves_nothing_pending(tmp_path: Path) -> None:
    async with running(make(tmp_path, ANSWERING)) as extension:
        for given in (object(), "\ud800", {1.5: 2**70, "a": object()}):
            failed = await fail(extension, {"given": given})
            assert failed.reason == "the call cannot be written as JSON"
            assert extension.consecutive_failures == 0
        # Calls that are left behind would be measured: the process is idle, and ends in order.
        assert await ask(extension) == {}
