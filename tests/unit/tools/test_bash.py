"""bash: real commands; what they print, how they end, and that nothing of them is left."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import anyio
import pytest

from nous.ports.tool import ToolResult
from nous.system.proctree import FAMILY
from nous.tools.bash import MAX_ARGUMENT_BYTES, MAX_STREAMED_BYTES, BashTool
from nous.tools.output import MAX_BYTES, MAX_LINES, MAX_WHOLE_BYTES
from tests.unit.system.processes import adopting_orphans, is_running
from tests.unit.tools.toolroom import DEADLINE_S, Room

pytestmark = pytest.mark.anyio

BASH = BashTool()
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


@pytest.fixture
def adopting() -> Iterator[None]:
    with adopting_orphans():
        yield


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert FAMILY.roots == {}


async def test_output_in_the_order_of_writing(room: Room) -> None:
    assert await room.text(BASH, command="echo 1; echo 2 >&2; echo 3") == "1\n2\n3\n"
    assert "".join(room.streamed) == "1\n2\n3\n"


async def test_no_output(room: Room) -> None:
    assert await room.text(BASH, cmd="true") == "[No output]"
    assert room.streamed == []


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("exit 3", "[Exit code 3]"),
        ("exit 255", "[Exit code 255, which the shell gives for signal 127]"),
        ("echo out; exit 3", "out\n[Exit code 3]"),
        ("printf out; exit 1", "out\n[Exit code 1]"),
        ("no-such-command-here 2>/dev/null", "[Exit code 127]"),
        ("kill -SEGV $$", "[Killed by SIGSEGV]"),
        ("kill -KILL $$", "[Killed by SIGKILL]"),
        ("exit 139", "[Exit code 139, which the shell gives for SIGSEGV]"),
    ],
)
async def test_how_it_failed(room: Room, command: str, text: str) -> None:
    assert await room.failure(BASH, command=command) == text


async def test_a_shell_with_everything_bash_has(room: Room) -> None:
    command = 'set -o pipefail; a=(1 2 3); [[ ${a[1]} == 2 ]] && cat <<< "${a[@]}" | tr -d "\\n"'
    assert await room.text(BASH, command=command) == "1 2 3"


async def test_works_in_the_working_directory_without_input(room: Room) -> None:
    assert await room.text(BASH, command="pwd; echo $PWD; cat") == f"{room.workdir}\n{room.workdir}\n"


async def test_a_command_without_a_place_or_a_character(room: Room) -> None:
    assert "NUL" in await room.failure(BASH, command="echo \0")
    assert "lone surrogate" in await room.failure(BASH, command="echo \ud800")
    room.workdir.rmdir()
    assert await room.failure(BASH, command="true") == "The command could not be started: No such file or directory."


@pytest.mark.parametrize("size", [MAX_ARGUMENT_BYTES - 100, 140_000, 8_000_000])
async def test_a_command_of_any_length(room: Room, size: int) -> None:
    command = f"cat > big <<'E'\n{'é' * (size // 2)}\nE\ncat; echo $0; wc -c < big; ls /dev/fd/ | wc -l; exit 3"
    text = await room.failure(BASH, command=command)
    short = await room.failure(BASH, command="echo $0; ls /dev/fd/ | wc -l; exit 3")
    name, descriptors, ending = short.split("\n")
    assert text.split() == [name, str(size // 2 * 2 + 1), descriptors, *ending.split()]


async def test_a_long_command_fails_as_a_short_one(room: Room) -> None:
    for padding in ("", "#" + "x" * 200_000 + "\n"):
        assert "syntax error" in await room.failure(BASH, command=f"{padding}echo (")
        assert await room.failure(BASH, command=f"{padding}kill -KILL $$") == "[Killed by SIGKILL]"
        assert await room.text(BASH, command=f"{padding}f() {{ echo $1; }}; f x") == "x\n"


async def test_a_long_command_without_bash(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nous.tools.bash.find_program", lambda name, environment: None)
    assert await room.text(BASH, command=f"#{'x' * 200_000}\nread x; echo end") == "end\n"


async def test_the_environment_has_no_secrets(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("GH_TOKEN", "gh-1")
    monkeypatch.setenv("NAMED_BY_A_SETTING", "named-1")
    monkeypatch.setenv("HARMLESS", "seen-1")
    text = await room.text(BashTool(closed_names={"NAMED_BY_A_SETTING"}), command="env")
    assert "seen-1" in text
    for secret in ("sk-1", "gh-1", "named-1", "OPENAI_API_KEY", "GH_TOKEN", "NAMED_BY_A_SETTING"):
        assert secret not in text


async def test_output_that_is_no_text(room: Room) -> None:
    assert await room.text(BASH, command=r"printf 'caf\351 \342\202\254 \0 \u2028\n'") == "caf\ufffd € \0 \u2028\n"


async def test_a_character_cut_in_two_by_the_pipe_is_streamed_whole(room: Room) -> None:
    command = r"printf 'a\342'; sleep 0.05; printf '\202\254b'; sleep 0.05; printf '\342'"
    assert await room.text(BASH, command=command) == "a€b\ufffd"
    assert "".join(room.streamed) == "a€b\ufffd"


async def test_it_is_streamed_while_it_runs(room: Room) -> None:
    seen = anyio.Event()

    async def progress(text: str) -> None:
        # The command goes on only after its first line has been seen.
        room.write("go")
        seen.set()

    room.progress = progress  # type: ignore[method-assign]
    assert (
        await room.text(BASH, command="echo first; until test -e go; do sleep 0.01; done; echo last") == "first\nlast\n"
    )
    assert seen.is_set()


async def test_nothing_is_read_while_the_client_does_not(room: Room) -> None:
    calls = 0
    gate = anyio.Event()

    async def progress(text: str) -> None:
        nonlocal calls
        calls += 1
        await gate.wait()

    room.progress = progress  # type: ignore[method-assign]
    results: list[ToolResult] = []

    async def call() -> None:
        results.append(await room.run(BASH, command="head -c 3000000 /dev/zero"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        while not calls:
            await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
        assert calls == 1
        gate.set()
    assert results[0].truncated
    assert calls > 1


async def test_a_long_output_shows_its_tail_and_names_the_whole(room: Room) -> None:
    result = await room.run(BASH, command="seq 100000; exit 1")
    assert result.outcome == "error"
    assert result.truncated
    lines = result.text.split("\n")
    assert lines[:MAX_LINES] == [str(number) for number in range(98_001, 100_001)]
    assert lines[MAX_LINES].startswith("[Output cut: the last 2000 of 100000 lines (588895 bytes) are shown.")
    assert str(room.outputs / "call1.txt") in lines[MAX_LINES]
    assert lines[MAX_LINES + 1 :] == ["[Exit code 1]"]
    whole = "".join(f"{number}\n" for number in range(1, 100_001))
    assert (room.outputs / "call1.txt").read_text() == whole
    assert "".join(room.streamed) == whole


async def test_a_hundred_megabytes_on_one_line(room: Room) -> None:
    result = await room.run(BASH, command="head -c 100000000 /dev/zero | tr '\\0' x; echo; echo end")
    assert result.outcome == "ok"
    assert result.text.startswith("end\n[Output cut: the last 1 of 2 lines (100000005 bytes)")
    assert f"Its first {MAX_WHOLE_BYTES} bytes are in" in result.text
    assert (room.outputs / "call1.txt").stat().st_size == MAX_WHOLE_BYTES
    streamed = "".join(room.streamed)
    assert MAX_STREAMED_BYTES <= len(streamed) < MAX_STREAMED_BYTES + 70_000
    assert streamed.endswith("\n[The rest of the output is not streamed]\n")


async def test_one_long_line_is_cut_at_its_beginning(room: Room) -> None:
    result = await room.run(BASH, command="head -c 300000 /dev/zero | tr '\\0' x")
    assert result.text.startswith("x" * MAX_BYTES + "\n[Output cut: the last 1 of 1 lines (300000 bytes)")


async def test_too_long(room: Room) -> None:
    text = await room.failure(BASH, command="echo begun; sleep 300", timeout_ms=200)
    assert text == "begun\n[Timed out after 200 ms: the command and all it started were ended]"


@pytest.mark.parametrize("seconds", [0.2, "0.2"])
async def test_a_timeout_in_seconds(room: Room, seconds: object) -> None:
    assert "Timed out after 200 ms" in await room.failure(BASH, command="sleep 300", timeout=seconds)
    assert await room.text(BASH, command="echo x", timeout=None) == "x\n"


async def test_the_time_of_calls_that_name_none(room: Room) -> None:
    assert "after 150 ms" in await room.failure(BashTool(timeout_ms=150), command="sleep 300")
    assert BashTool(timeout_ms=150).schema["properties"]["timeout_ms"]["default"] == 150


@needs_proc
async def test_a_command_that_ignores_the_end_is_killed(room: Room) -> None:
    command = "trap '' TERM; echo $$; while :; do sleep 300; done"
    text = await room.failure(BASH, command=command, timeout_ms=200)
    assert not is_running(int(text.split("\n")[0]))


@needs_proc
@pytest.mark.usefixtures("adopting")
@pytest.mark.parametrize("start", ["sleep 300 &", "setsid sleep 300 &", "nohup setsid sleep 300 > /dev/null 2>&1 &"])
async def test_what_it_left_in_the_background_is_ended(room: Room, start: str) -> None:
    text = await room.text(BASH, command=f"{start} echo $!")
    assert not is_running(int(text))


@needs_proc
@pytest.mark.usefixtures("adopting")
@pytest.mark.parametrize("start", ["sleep 300 &", "setsid sleep 300 &", "(trap '' TERM; sleep 300; :) &"])
async def test_cancelling_leaves_no_process(room: Room, start: str) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: room.run(BASH, command=f"{start} echo $!; echo $$; wait; sleep 300"))
        with anyio.fail_after(DEADLINE_S):
            while "".join(room.streamed).count("\n") < 2:
                await anyio.wait_all_tasks_blocked()
        pids = [int(line) for line in "".join(room.streamed).split()]
        assert all(map(is_running, pids))
        tasks.cancel_scope.cancel()
    assert not any(map(is_running, pids))


@needs_proc
async def test_too_much_memory(room: Room) -> None:
    hog = f"{sys.executable} -c 'held = b\"x\" * 400_000_000; import time; time.sleep(300)'"
    text = await room.failure(BashTool(memory_limit_mb=200), command=f"{hog}; echo not reached")
    assert text == "[More than 200 MiB of memory: the command and all it started were ended]"


async def test_commands_of_two_runs_do_not_end_each_other(room: Room) -> None:
    results: list[str] = []

    async def call(command: str) -> None:
        results.append((await room.run(BASH, command=command)).text)

    with adopting_orphans():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "setsid sleep 0.3 & wait; echo survived")
            tasks.start_soon(call, "setsid sleep 300 & echo short")
    assert sorted(results) == ["short\n", "survived\n"]


async def test_bad_calls(room: Room) -> None:
    for arguments in (
        {},
        {"command": ""},
        {"command": ["ls"]},
        {"command": "ls", "timeout_ms": 0},
        {"command": "ls", "timeout_ms": 10**12},
        {"command": "ls", "timeout": "soon"},
        {"command": "ls", "timeout": float("inf")},
        {"command": "ls", "cwd": "/"},
    ):
        result = await BASH.run(arguments, room.context())
        assert result.outcome == "invalid_arguments", arguments
    assert not room.outputs.exists()
