"""The bytes between a client and a real process: section 1 of protocol v1, row by row."""

from __future__ import annotations

import json
import random
from pathlib import Path

import anyio
import pytest

from tests.support.gates import chat, chat_setup, gated
from tests.support.harness import command_line, open_peer, open_process
from tests.support.home import Home, Setup
from tests.support.lines import joined_deltas, of_type
from tests.support.sse_server import serve, streams

pytestmark = pytest.mark.anyio

MIB = 1 << 20
SEPARATORS = "\u2028\u2029\u0085\u001c\u001e\u000b\u000c"
"""What str.splitlines() takes for line ends, and the wire does not."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.behaviour("P1.1", "P1.2", "P1.3")
async def test_line_ends_and_empty_lines(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        await peer.send(b'\n\r\n \t\r\n{"id":"a","type":"ping"}\r\n\n  {"id":"b","type":"ping"}  \n\x0b\x0c\n')
        await peer.send(b'{"id":"c","type":"ping"}\r\r\n')
        await peer.ok("ping")
        answers = [(line.id, line.type) for line in peer.lines if line.is_answer]
        assert answers == [("a", "pong"), ("b", "pong"), ("c", "pong"), ("c1", "pong")]


@pytest.mark.behaviour("P1.1")
async def test_a_command_in_any_number_of_writes(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        line = command_line("prompt", {"text": "h\u00e9llo \U0001f600"}, "p") + b"\n"
        for position in range(len(line)):
            await peer.send(line[position : position + 1])
        assert (await peer.answer("p")).payload["output"] == "mock response: h\u00e9llo \U0001f600"


@pytest.mark.behaviour("P1.1", "P3.3")
async def test_many_commands_in_one_write(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        await peer.send(b"".join(command_line("ping", None, f"n{n}") + b"\n" for n in range(5000)))
        for n in range(5000):
            assert (await peer.answer(f"n{n}")).type == "pong"


@pytest.mark.behaviour("P1.1", "P3.16")
async def test_a_last_line_without_a_line_end_counts(home: Home) -> None:
    async with open_process(home) as (peer, spawned):
        await peer.send(b'{"id":"a","type":"ping"}\n{"id":"b","type":"ping"}')
        await peer.end()
        lines = await peer.rest()
        assert [line.id for line in lines if line.is_answer] == ["a", "b"]
        assert await spawned.wait() == 0


@pytest.mark.behaviour("P1.4")
async def test_other_separators_are_ordinary_characters(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        text = f"a{SEPARATORS}b"
        line = json.dumps({"id": "p\u2028", "type": "prompt", "payload": {"text": text}}, ensure_ascii=False)
        await peer.send_line(line.encode())
        result = await peer.answer("p\u2028")
        assert result.payload["output"] == f"mock response: {text}"
        run = await peer.run_events(result.run_id)
        assert joined_deltas(run) == f"mock response: {text}"
        assert of_type(run, "turn_start")[0].payload["command_id"] == "p\u2028"


@pytest.mark.behaviour("P1.5", "P1.6")
async def test_what_a_tool_prints_leaves_as_strict_json(home: Home) -> None:
    octal = "\\000\\037\\177\\377\\376\\355\\240\\200\\342\\200\\250\\342\\202"
    script = [[{"tool_call": {"name": "bash", "arguments": {"command": f"printf 'a{octal}b'"}}}], [{"text": "Odd."}]]
    async with open_peer("stdio", home, Setup(script=script)) as peer:
        run = await peer.run("print")
        [end] = of_type(run, "tool_execution_end")
        text = end.payload["result"]
        assert text.startswith("a")
        assert "\u2028" in text
        assert "\ufffd" in text
        assert run[-1].payload["status"] == "completed"


REFUSED: list[tuple[str, bytes, str]] = [
    ("", b'{"id":"x","type":"ping","payload":{"a":"\xff"}}', "invalid_utf8"),
    ("", b'{"id":"x","type":"ping","payload":{"a":"\xed\xa0\x80"}}', "invalid_utf8"),
    ("", b"\x00", "invalid_json"),
    ("", b"ping", "invalid_json"),
    ("", b'{"id":"x","type":"ping"', "invalid_json"),
    ("", b'{"id":"x","type":"ping"}}', "invalid_json"),
    ("", b'{"id":"x","type":"ping"} {"id":"y","type":"ping"}', "invalid_json"),
    ("", b"{'id':'x','type':'ping'}", "invalid_json"),
    ("", b'{"id":"x","type":"ping","payload":{"a":NaN}}', "invalid_json"),
    ("", b'{"id":"x","type":"ping","payload":{"a":"\x01"}}', "invalid_json"),
    ("", b'\xef\xbb\xbf{"id":"x","type":"ping"}', "invalid_json"),
    ("", b"[]", "not_an_object"),
    ("", b'[{"id":"x","type":"ping"}]', "not_an_object"),
    ("", b'"ping"', "not_an_object"),
    ("", b"null", "not_an_object"),
    ("", b"17", "not_an_object"),
    ("x", b'{"id":"x","type":"ping","type":"shutdown"}', "duplicate_key"),
    ("x", b'{"id":"x","type":"ping","ty\\u0070e":"shutdown"}', "duplicate_key"),
    ("x", b'{"id":"x","type":"ping","payload":' + b"[" * 64 + b"]" * 64 + b"}", "too_deep"),
    ("x", b'{"id":"x","type":"ping","meta":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "too_deep"),
    ("", b"[" * 1_000_000, "too_deep"),
    ("x", b'{"id":"x","type":"ping","v":"3"}', "invalid_version"),
    ("", b'{"type":"ping"}', "missing_id"),
    ("x", b'{"id":"x"}', "missing_type"),
    ("x", b'{"id":"x","type":"no such command"}', "unknown_command"),
]


@pytest.mark.behaviour("P1.10", "P1.11", "P2.2", "P8.1")
async def test_every_bad_line_gets_one_error_and_the_next_line_counts(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        assert (await peer.next_line()).payload["message"] == "ready"
        for command_id, line, cause in REFUSED:
            await peer.send_line(line)
            answer = await peer.next_line()
            found = (answer.id, answer.code, answer.cause)
            assert found == (command_id, "invalid_command", cause), line[:100]
            await peer.send_line(b'{"id":"next","type":"ping"}')
            assert (await peer.next_line()).type == "pong", line[:100]


@pytest.mark.behaviour("P1.10", "P2.5")
async def test_depth_and_duplicates_where_they_are_allowed(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        deepest = b'{"id":"a","type":"ping","meta":%b%b}' % (b"[" * 63, b"]" * 63)
        await peer.send_line(deepest)
        assert (await peer.answer("a")).type == "pong"
        await peer.send_line(b'{"id":"b","type":"ping","meta":{"k":1,"k":2},"payload":{"x":"[[[{{{"}}')
        assert (await peer.answer("b")).type == "pong"


@pytest.mark.behaviour("P1.11")
async def test_no_input_ends_the_process(home: Home) -> None:
    source = random.Random(20260711)
    pieces = [b'{"id":"a",', b'"type":"ping"', b'"payload":{', b"}", b"[", b"\\u", b'"', b"\xf0\x9f", b"\x00", b"1e999"]
    lines: list[bytes] = []
    for _ in range(3000):
        parts = [source.choice(pieces) if source.random() < 0.7 else source.randbytes(6) for _ in range(12)]
        lines.append(b"".join(parts[: source.randrange(1, 12)]).replace(b"\n", b"") + b"x")
    async with open_peer("stdio", home) as peer:
        await peer.send(b"\n".join(lines) + b"\n")
        for _ in lines:
            assert (await peer.answer("")).code == "invalid_command"
        await peer.ok("ping")


@pytest.mark.behaviour("P1.7", "P1.9", "P8.3")
async def test_a_line_may_be_as_long_as_announced_and_no_longer(home: Home) -> None:
    limit = 4096
    async with open_peer("stdio", home, Setup(flags=("--max-line-bytes", str(limit)))) as peer:
        assert (await peer.next_line()).payload["max_line_bytes"] == limit
        for size, end, fits in ((limit, b"\n", True), (limit, b"\r\n", True), (limit + 1, b"\n", False)):
            line = command_line("ping", {"pad": ""}, "a")
            line = line.replace(b'"pad":""', b'"pad":"%b"' % (b"x" * (size - len(line))))
            assert len(line) == size
            await peer.send(line + end)
            answer = await peer.next_line()
            assert (answer.id, answer.code) == (("a", "") if fits else ("", "line_too_long"))
        assert answer.data["error"]["category"] == "invalid_input"
        await peer.ok("ping")


@pytest.mark.behaviour("P1.7")
async def test_the_default_limits_are_announced(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        ready = (await peer.next_line()).payload
        assert (ready["max_line_bytes"], ready["max_event_bytes"]) == (8 * MIB, MIB)


@pytest.mark.behaviour("P1.8", "P1.9")
async def test_a_line_too_long_costs_no_memory(home: Home) -> None:
    async with open_process(home, Setup(flags=("--max-line-bytes", "65536"))) as (peer, spawned):
        await peer.ok("ping")
        before = spawned.memory_bytes("VmHWM")
        chunk = b"x" * MIB
        for _ in range(96):
            await peer.send(chunk)
        await peer.send(b'\n{"id":"after","type":"ping"}\n')
        assert (await peer.answer("after")).type == "pong"
        assert [line.code for line in peer.lines if line.id == ""] == ["line_too_long"]
        assert spawned.memory_bytes("VmHWM") - before < 4 * MIB


@pytest.mark.behaviour("P1.8")
async def test_a_line_as_long_as_may_be_is_held_once(home: Home) -> None:
    async with open_process(home) as (peer, spawned):
        await peer.ok("ping")
        before = spawned.memory_bytes("VmHWM")
        for _ in range(7):
            await peer.send(b" " * MIB)
        await peer.send(b'{"id":"a","type":"ping"}\n')
        assert (await peer.answer("a")).type == "pong"
        assert spawned.memory_bytes("VmHWM") - before < 4 * 8 * MIB


@pytest.mark.behaviour("P1.12", "P1.13", "P1.14")
async def test_no_outgoing_line_is_longer_than_announced(home: Home) -> None:
    # Every line the peer reads is measured; these are the ways to a long one.
    long = "\u0001" * 700_000
    script = [
        [{"tool_call": {"name": "write", "arguments": {"path": "a", "content": long}, "id": "c" * 200_000}}],
        [{"tool_call": {"name": "x" * 500_000, "arguments": "[" * 500_000}}],
        [{"text": long}],
    ]
    async with open_peer("stdio", home, Setup(script=script)) as peer:
        await peer.ok("hello", {"features": ["thinking", "tool_arguments"]})
        await peer.ask("prompt", {"text": long}, "i" * 100)
        result = await peer.answer("i" * 100)
        assert result.type == "result"
        run = await peer.run_events(result.run_id)
        assert joined_deltas(run) == long
        assert joined_deltas(run, "tool_arguments_update").endswith("[" * 500_000)
        await peer.ok("get_messages")
        await peer.ok("get_tree")


@pytest.mark.behaviour("P1.12", "P2.2")
async def test_an_id_too_long_to_be_echoed_makes_no_long_line(home: Home) -> None:
    async with open_peer("stdio", home) as peer:
        long = b"i" * 1_500_000
        for kind in (b"ping", b"prompt", b"nonsense"):
            before = len(peer.lines)
            await peer.send_line(b'{"id":"%b","type":"%b","payload":{"text":"hello","wait":false}}' % (long, kind))
            await peer.ok("ping")
            # One answer, whatever it is, in a line that is no longer than was announced.
            assert len([line for line in peer.lines[before:] if line.is_answer]) == 2


@pytest.mark.behaviour("P1.12", "P4.40")
async def test_what_was_queued_comes_back_in_lines_that_fit(home: Home) -> None:
    count = 8_000
    script = [[{"text": "Hello"}, {"hang": True}]]
    async with open_peer("stdio", home, Setup(script=script)) as peer:
        run_id = await peer.start("hello")
        await peer.events_until("message_update")
        await peer.send(b"".join(command_line("steer", {"text": f"{n}"}, f"{n:0200d}") + b"\n" for n in range(count)))
        await peer.answer(f"{count - 1:0200d}")
        await peer.ok("abort")
        discarded = (await peer.run_events(run_id))[-1].payload["discarded"]
        assert [d["text"] for d in discarded[:3]] == ["0", "1", "2"]


@pytest.mark.behaviour("P1.12", "P4.37")
async def test_a_turn_of_very_many_inputs_fits_its_lines(home: Home) -> None:
    count = 8_000
    release = anyio.Event()
    replies = gated(release, "Hello"), streams(*chat("All of it."))
    async with serve(*replies) as server, open_peer("stdio", home, chat_setup(server.url)) as peer:
        await peer.ok("set_follow_up_mode", {"mode": "all"})
        run_id = await peer.start("hello")
        await peer.events_until("message_update")
        await peer.send(
            b"".join(command_line("follow_up", {"text": f"{n}"}, f"{n:0200d}") + b"\n" for n in range(count))
        )
        await peer.answer(f"{count - 1:0200d}")
        release.set()
        run = await peer.run_events(run_id)
        assert run[-1].payload["status"] == "completed"
        assert len(of_type(run, "turn_start")) == 2
