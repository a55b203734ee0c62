"""What a run says, over every transport: the grammar of its events and what each of them carries."""

from __future__ import annotations

import pytest

from tests.support.harness import OpenPeer
from tests.support.home import ONE_TRY, Home, Setup
from tests.support.lines import joined_deltas, of_type, types

pytestmark = pytest.mark.anyio

UNICODE = 'a\u0000\u001f\u007f\u2028\u2029\ufeff\ufffd\U0001f600e\u0301\\"/\r\n\t'


def call(name: str, call_id: str, **arguments: object) -> dict[str, object]:
    return {"tool_call": {"name": name, "arguments": arguments, "id": call_id}}


@pytest.mark.behaviour("P2.8", "P2.9")
async def test_events_of_a_run_count_from_one(nous: OpenPeer) -> None:
    async with nous() as peer:
        for text in ("one", "two"):
            run = await peer.run(text)
            assert [line.data["seq"] for line in run] == list(range(1, len(run) + 1))
            assert [line.id for line in run] == [f"{line.run_id}.{line.data['seq']}" for line in run]


@pytest.mark.behaviour("P5.1", "P5.2")
async def test_how_a_run_begins_and_ends(nous: OpenPeer) -> None:
    async with nous() as peer:
        accepted = await peer.ok("prompt", {"text": "four by four", "wait": False})
        start, *_, end = await peer.run_events(accepted["run_id"])
        assert start.payload == {
            "run_id": accepted["run_id"],
            "session_id": accepted["session_id"],
            "leaf_id": "",
            "provider": "mock",
            "model": "mock",
        }
        assert (end.payload["status"], end.payload["stop_reason"], end.payload["discarded"]) == (
            "completed",
            "stop",
            [],
        )
        assert end.payload["usage"] == {
            "input_tokens": 3,
            "output_tokens": 7,
            "cached_tokens": 0,
            "reasoning_tokens": 0,
        }
        assert end.payload["duration_ms"] >= 0


@pytest.mark.behaviour("P5.3", "P5.14", "P3.7")
async def test_a_turn_names_its_command(nous: OpenPeer) -> None:
    async with nous() as peer:
        accepted = await peer.command("prompt", {"text": "hi", "wait": False}, "my id")
        run = await peer.run_events(accepted.run_id)
        turn = {"run_id": accepted.run_id, "turn_id": "1", "turn_kind": "prompt", "command_id": "my id"}
        assert [line.payload for line in of_type(run, "turn_start", "turn_end")] == [turn, turn]
        inner = [line for line in run if line.type.startswith("message")]
        assert {line.payload["turn_id"] for line in inner} == {"1"}


@pytest.mark.behaviour("P5.4", "P5.6", "P5.13")
async def test_a_user_input_is_a_message_too(nous: OpenPeer) -> None:
    async with nous() as peer:
        run = await peer.run("What is this?")
        start, end = run[2], run[3]
        assert (start.type, start.payload["role"]) == ("message_start", "user")
        assert (end.type, end.payload["role"], end.payload["text"]) == ("message_end", "user", "What is this?")
        assert start.payload["message_id"] == end.payload["message_id"]


@pytest.mark.behaviour("P5.5", "P5.6", "P5.12")
async def test_joined_deltas_are_the_final_text(nous: OpenPeer) -> None:
    async with nous() as peer:
        run = await peer.run(UNICODE * 20)
        end = of_type(run, "message_end")[-1]
        assert joined_deltas(run) == end.payload["text"] == "mock response: " + UNICODE * 20
        assert (end.payload["stop_reason"], end.payload["role"]) == ("stop", "assistant")
        assert {line.payload["message_id"] for line in of_type(run, "message_update")} == {end.payload["message_id"]}


@pytest.mark.behaviour("P1.5", "P5.12")
async def test_a_half_pair_is_carried_to_the_next_delta(nous: OpenPeer, home: Home) -> None:
    # In the file the halves are written as escapes; so they arrive as a provider's halves do.
    script = home.root / "halves.ndjson"
    script.write_bytes(b'[{"text": ["a\\ud83d", "\\ude00b\\ude00", "c\\ud83d"]}]\n')
    async with nous(Setup(flags=("--script", str(script)))) as peer:
        run = await peer.run("hi")
        assert joined_deltas(run) == of_type(run, "message_end")[-1].payload["text"] == "a\U0001f600b\ufffdc\ufffd"


@pytest.mark.behaviour("P1.12", "P1.13", "P1.14", "P5.12")
async def test_long_deltas_are_split_and_a_long_text_is_only_measured(nous: OpenPeer) -> None:
    text = "\u20ac\u0001" * 200_000
    async with nous(Setup(script=[[{"text": text}]])) as peer:
        run = await peer.run("hi")
        end = of_type(run, "message_end")[-1]
        assert (end.payload["text_omitted"], end.payload["text_bytes"]) == (True, len(text.encode()))
        assert "text" not in end.payload
        assert joined_deltas(run) == text
        assert len(of_type(run, "message_update")) > 1


@pytest.mark.behaviour("P1.14")
@pytest.mark.parametrize(("length", "omitted"), [(256 * 1024 - 2, False), (256 * 1024 - 1, True)])
async def test_where_a_text_gets_too_long(nous: OpenPeer, length: int, omitted: bool) -> None:
    async with nous(Setup(script=[[{"text": "x" * length}]])) as peer:
        end = of_type(await peer.run("hi"), "message_end")[-1]
        assert ("text_omitted" in end.payload, "text" in end.payload) == (omitted, not omitted)


@pytest.mark.behaviour("P1.15", "P3.11", "P5.15")
async def test_an_endless_message_fails_its_run(nous: OpenPeer, home: Home) -> None:
    script = [[{"text_repeat": {"text": "0123456789", "count": 1_000_000}}]]
    async with nous(Setup(script=script, config={"daemon": {"max_message_bytes": 10_000}})) as peer:
        run = await peer.run("hi")
        assert types(run)[-4:] == ["message_end", "error", "turn_end", "agent_end"]
        error = of_type(run, "error")[0]
        assert error.payload["code"] == "provider_error"
        assert "message_too_large" in error.payload["cause"]
        assert "10000" in error.payload["cause"]
        assert 10_000 < len(joined_deltas(run)) < 20_000
        assert not any(b"0123456789" in line for line in home.session_lines())
        assert (await peer.run("again"))[-1].payload["status"] == "completed"


@pytest.mark.behaviour("P5.7", "P5.8", "P5.9", "P3.8", "P3.9")
async def test_a_tool_call(nous: OpenPeer, home: Home) -> None:
    (home.workdir / "note.txt").write_text("remember\n", encoding="utf-8")
    script = [[{"text": "I look."}, call("read", "c1", path="note.txt")], [{"text": "It says remember."}]]
    async with nous(Setup(script=script)) as peer:
        run = await peer.run("What does it say?")
        assert [t for t in types(run) if t != "message_update"] == [
            "agent_start",
            "turn_start",
            *["message_start", "message_end"] * 2,
            "tool_execution_start",
            "tool_execution_update",
            "tool_execution_end",
            *["message_start", "message_end"],
            "turn_end",
            "agent_end",
        ]
        start, end = of_type(run, "tool_execution_start", "tool_execution_end")
        assert (start.payload["tool_call_id"], start.payload["tool_name"]) == ("c1", "read")
        assert start.payload["arguments"] == {"path": "note.txt"}
        assert (end.payload["tool_call_id"], end.payload["tool_name"]) == ("c1", "read")
        assert "remember" in end.payload["result"]
        assert joined_deltas(run, "tool_execution_update") == end.payload["result"]
        assert (end.payload["is_error"], end.payload["truncated"]) == (False, False)
        assert end.payload["duration_ms"] >= 0
        messages = (await peer.ok("get_messages"))["messages"]
        assert [m["role"] for m in messages] == ["user", "assistant", "tool_result", "assistant"]
        assert messages[2]["id"] == end.payload["message_id"]
        assert of_type(run, "message_end")[1].payload["stop_reason"] == "tool_use"


@pytest.mark.behaviour("P3.10")
async def test_tools_of_one_message_run_in_order(nous: OpenPeer, home: Home) -> None:
    calls = [call("bash", f"c{n}", command=f"echo {n} >> log; cat log") for n in range(3)]
    async with nous(Setup(script=[calls, [{"text": "Done."}]])) as peer:
        run = await peer.run("Count.")
        tools = of_type(run, "tool_execution_start", "tool_execution_end")
        assert [line.payload["tool_call_id"] for line in tools] == ["c0", "c0", "c1", "c1", "c2", "c2"]
        assert (home.workdir / "log").read_text(encoding="utf-8") == "0\n1\n2\n"


@pytest.mark.behaviour("P5.8")
async def test_a_tool_streams_while_it_runs(nous: OpenPeer) -> None:
    script = [[call("bash", "c1", command="echo out; echo err >&2; printf '\\342\\200\\250'")], [{"text": "Done."}]]
    async with nous(Setup(script=script)) as peer:
        run = await peer.run("Say.")
        start, *updates, end = [line for line in run if line.type.startswith("tool_execution")]
        assert (start.type, end.type) == ("tool_execution_start", "tool_execution_end")
        assert {line.type for line in updates} == {"tool_execution_update"}
        assert joined_deltas(updates, "tool_execution_update") == "out\nerr\n\u2028"
        assert "out\nerr\n\u2028" in end.payload["result"]


BAD_CALLS: list[tuple[str, object, str]] = [
    ("teleport", {}, "tool_not_found"),
    ("write", {"path": "x", "content": "y"}, "tool_not_active"),
    ("read", {"path": 5}, "tool_validation_error"),
    ("read", "[1, 2", "tool_validation_error"),
    ("read", {"path": "nothing-here"}, "tool_execution_error"),
    ("bash", {"command": "exit 3"}, "tool_execution_error"),
    ("grep", {"pattern": "x"}, "tool_blocked"),
]


@pytest.mark.behaviour("P5.9", "P5.10", "P8.26")
async def test_a_bad_call_is_a_result_the_model_can_read(nous: OpenPeer) -> None:
    calls = [
        {"tool_call": {"name": name, "arguments": arguments, "id": f"c{number}"}}
        for number, (name, arguments, _) in enumerate(BAD_CALLS)
    ]
    setup = Setup(
        script=[calls, [{"text": "I see."}]],
        config={"tools": {"policy": {"grep": "deny"}}},
        flags=("--tools", "read,bash,grep"),
    )
    async with nous(setup) as peer:
        run = await peer.run("Try.")
        warnings = of_type(run, "warning")
        assert [w.payload["code"] for w in warnings] == [code for _, _, code in BAD_CALLS]
        assert [w.payload["tool_call_id"] for w in warnings] == [f"c{number}" for number in range(len(BAD_CALLS))]
        assert all(w.payload["message"] for w in warnings)
        ends = of_type(run, "tool_execution_end")
        assert [e.payload["is_error"] for e in ends] == [True] * len(BAD_CALLS)
        assert all(e.payload["result"] for e in ends)
        assert of_type(run, "message_end")[-1].payload["text"] == "I see."
        assert run[-1].payload["status"] == "completed"


@pytest.mark.behaviour("P5.10", "P3.6", "P3.11")
async def test_a_tool_loop_is_limited(nous: OpenPeer) -> None:
    script = [[call("ls", f"c{n}")] for n in range(5)]
    async with nous(Setup(script=script, config={"engine": {"max_model_calls": 3}})) as peer:
        run = await peer.run("Loop.")
        assert len(of_type(run, "tool_execution_end")) == 3
        [warning] = of_type(run, "warning")
        assert (warning.payload["code"], warning.payload["limit"]) == ("tool_loop_limit_exceeded", 3)
        assert run[-1].payload["status"] == "max_steps"


@pytest.mark.behaviour("P3.11", "P5.11", "P5.15")
@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ([{"error": {"status": 401}}], "provider_auth"),
        ([{"error": {"status": 500}}], "provider_unavailable"),
        ([{"error": {"code": "context_overflow"}}], "context_overflow"),
        ([{"text": "Half an ans"}, {"cut": True}], "provider_unavailable"),
        ([{"text": "Half an ans"}, {"error": {"code": "provider_error"}}], "provider_error"),
        ([{"text": "Half an ans"}, {"finish": "refusal"}], "content_refused"),
    ],
)
async def test_a_failed_model_call_fails_the_run_in_order(
    nous: OpenPeer, home: Home, steps: list[object], code: str
) -> None:
    async with nous(Setup(script=[steps], config=ONE_TRY)) as peer:
        run = await peer.run("hi")
        opened = len(steps) > 1
        assert types(run)[4:] == [
            *(["message_start", "message_update", "message_end"] if opened else []),
            "error",
            "turn_end",
            "agent_end",
        ]
        error, end = of_type(run, "error")[0], run[-1]
        assert error.payload["code"] == code
        assert error.payload["category"]
        assert error.payload["retryable"] is (code == "provider_unavailable")
        assert (end.payload["status"], end.payload["stop_reason"]) == ("failed", "error")
        if opened:
            assert of_type(run, "message_end")[-1].payload["stop_reason"] == "error"
        messages = (await peer.ok("get_messages"))["messages"]
        assert [m["role"] for m in messages] == ["user"]
        assert end.payload["leaf_id"] == messages[-1]["id"]
        assert not any(b"Half an ans" in line for line in home.session_lines())


@pytest.mark.behaviour("P5.15")
async def test_finished_tool_rounds_of_a_failed_turn_stay(nous: OpenPeer) -> None:
    script = [[{"text": "Look."}, call("ls", "c1")], [{"text": "Half"}, {"cut": True}]]
    async with nous(Setup(script=script)) as peer:
        run = await peer.run("hi")
        assert run[-1].payload["status"] == "failed"
        messages = (await peer.ok("get_messages"))["messages"]
        assert [m["role"] for m in messages] == ["user", "assistant", "tool_result"]
        assert run[-1].payload["leaf_id"] == messages[-1]["id"]


@pytest.mark.behaviour("P5.6")
async def test_usage_of_calls_adds_up(nous: OpenPeer) -> None:
    script = [
        [{"usage": {"input_tokens": 10, "output_tokens": 2}}, call("ls", "c1")],
        [{"text": "x"}, {"usage": {"input_tokens": 20, "output_tokens": 3, "cached_tokens": 5}}],
    ]
    async with nous(Setup(script=script)) as peer:
        run = await peer.run("hi")
        ends = [
            line.payload["usage"]["input_tokens"] for line in of_type(run, "message_end") if "usage" in line.payload
        ]
        assert ends == [10, 20]
        assert run[-1].payload["usage"] == {
            "input_tokens": 30,
            "output_tokens": 5,
            "cached_tokens": 5,
            "reasoning_tokens": 0,
        }


@pytest.mark.behaviour("P5.6")
async def test_an_answer_cut_by_its_length_says_so(nous: OpenPeer) -> None:
    async with nous(Setup(script=[[{"text": "And then"}, {"finish": "length"}]])) as peer:
        run = await peer.run("hi")
        assert of_type(run, "message_end")[-1].payload["stop_reason"] == "length"
        assert (run[-1].payload["status"], run[-1].payload["stop_reason"]) == ("completed", "length")
