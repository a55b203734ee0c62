"""Which model a run uses: by its prompt, by its session, by the daemon; what is known of models; what they cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nous.config.provider import KEY_VARIABLES
from tests.support.gates import chat_delta, chat_setup
from tests.support.harness import OpenPeer, Peer
from tests.support.home import Home, Setup
from tests.support.lines import Line
from tests.support.sse_server import Server, data_lines, serve, streams

pytestmark = pytest.mark.anyio

NEARBY = {"anthropic": {"api_base": "http://127.0.0.1:9"}}
"""A server on this machine needs no key."""

HANGS = [{"text": "Hello"}, {"hang": True}]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in KEY_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


def agent(events: list[Line]) -> tuple[str, str]:
    return events[0].payload["provider"], events[0].payload["model"]


async def model_of(peer: Peer, **payload: object) -> tuple[str, str, str | None]:
    state = await peer.ok("get_state", payload)
    return state["provider"], state["model"], state.get("thinking")


@pytest.mark.behaviour("P4.44")
async def test_a_prompt_names_its_model_for_itself_alone(nous: OpenPeer) -> None:
    async with nous(Setup(flags=("--model", "small"))) as peer:
        assert agent(await peer.run("a")) == ("mock", "small")
        assert agent(await peer.run("b", model="large", thinking="high")) == ("mock", "large")
        assert agent(await peer.run("c")) == ("mock", "small")
        assert await model_of(peer) == ("mock", "small", None)


@pytest.mark.behaviour("P6.15")
async def test_a_session_keeps_the_model_that_was_set(nous: OpenPeer) -> None:
    async with nous() as peer:
        answer = await peer.command("set_model", {"model": "large", "thinking": "low"})
        session_id = answer.payload["session_id"]
        assert answer.type == "model"
        assert answer.payload == {"session_id": session_id, "provider": "mock", "model": "large", "thinking": "low"}
        assert agent(await peer.run("a")) == ("mock", "large")
        assert agent(await peer.run("b", model="other")) == ("mock", "other")
        assert agent(await peer.run("c")) == ("mock", "large")
        assert await model_of(peer) == ("mock", "large", "low")
        # How much to think goes with the model.
        leaf_id = (await peer.ok("get_tree"))["leaf_id"]
        assert await peer.ok("set_model", {"model": "third"}) == {
            "session_id": session_id,
            "provider": "mock",
            "model": "third",
            "leaf_id": leaf_id,
        }
        await peer.ok("new_session")
        assert await model_of(peer) == ("mock", "mock", None)
        assert await model_of(peer, session_id=session_id) == ("mock", "third", None)


@pytest.mark.behaviour("P6.15")
async def test_another_daemon_finds_the_model_that_was_set(nous: OpenPeer) -> None:
    async with nous() as peer:
        await peer.run("a")
        session_id = (await peer.ok("set_model", {"model": "large"}))["session_id"]
    async with nous() as peer:
        assert await model_of(peer, session_id=session_id) == ("mock", "large", None)
        assert agent(await peer.run("b", session_id=session_id)) == ("mock", "large")


@pytest.mark.behaviour("P6.15")
async def test_each_branch_has_its_own_model(nous: OpenPeer) -> None:
    async with nous() as peer:
        await peer.run("a")
        first = (await peer.ok("get_tree"))["leaf_id"]
        await peer.run("b")
        await peer.ok("set_model", {"model": "large"})
        await peer.run("c")
        last = (await peer.ok("get_tree"))["leaf_id"]
        await peer.ok("set_leaf", {"leaf_id": first})
        assert (await model_of(peer))[1] == "mock"
        await peer.ok("set_model", {"model": "third"})
        assert agent(await peer.run("d"))[1] == "third"
        assert agent(await peer.run("e", leaf_id=last))[1] == "large"
        for leaf_id, model in ((first, "third"), (last, "large")):
            await peer.ok("set_leaf", {"leaf_id": leaf_id})
            assert (await model_of(peer))[1] == model
        branch = await peer.ok("branch_session", {"session_id": (await peer.ok("get_state"))["session_id"]})
        assert (await model_of(peer, session_id=branch["session_id"]))[1] == "large"


@pytest.mark.behaviour("P6.16")
async def test_the_model_is_set_between_runs_only(nous: OpenPeer) -> None:
    async with nous(Setup(script=[HANGS])) as peer:
        run_id = await peer.start("a")
        await peer.events_until("message_update")
        assert await peer.refused("set_model", {"model": "large"}) == "command_rejected: run_in_progress"
        await peer.ok("abort", {"run_id": run_id})
        await peer.run_events(run_id)
        await peer.ok("set_model", {"model": "large"})


@pytest.mark.behaviour("P6.17")
async def test_what_cannot_answer_is_refused_before_anything_is_written(nous: OpenPeer, home: Home) -> None:
    async with nous(Setup(config={"providers": NEARBY})) as peer:
        for kind in ("prompt", "set_model"):
            for payload, refusal in (
                ({"provider": "nobody", "model": "x"}, "invalid_payload: provider: expected one of mock, openai, "),
                ({"provider": "anthropic"}, "invalid_payload: model: needed with another provider"),
                ({"provider": "openai", "model": "gpt-5.4"}, "provider_auth: OPENAI_API_KEY: not set"),
                ({"thinking": "huge"}, "invalid_payload: thinking"),
                ({"model": ""}, "invalid_payload: model"),
                ({"model": "x" * 257}, "invalid_payload: model"),
            ):
                assert (await peer.refused(kind, {"text": "x", **payload})).startswith(refusal), payload
        for kind in ("prompt", "set_model"):
            answer = await peer.command(kind, {"text": "x", "provider": "openai", "model": "gpt-5.4"})
            assert answer.code == "provider_auth"
            assert answer.data["error"]["message"] == "The provider's key is not set. (OPENAI_API_KEY: not set)"
        asked = {"text": "x", "provider": "anthropic", "model": "claude-fable-5"}
        assert (await peer.ok("get_state"))["session_id"] == ""
        assert home.session_lines() == []
        assert [*(home.state / "traces").glob("*.ndjson")] == []
        del asked["text"]
        assert (await peer.ok("set_model", asked))["model"] == "claude-fable-5"


@pytest.mark.behaviour("P6.18")
async def test_the_models_that_are_known(nous: OpenPeer, home: Home) -> None:
    known = home.root / "models.yaml"
    known.write_text("anthropic:\n  claude-fable-5:\n    input_usd_per_mtok: 7.5\n", encoding="utf-8")
    config = {"provider": {"models_file": str(known)}, "providers": NEARBY}
    setup = Setup(flags=("--model", "tiny"), config=config)
    async with nous(setup) as peer:
        answer = await peer.command("list_models")
        assert (answer.type, answer.payload["provider"], answer.payload["model"]) == ("models", "mock", "tiny")
        rows = {row["name"]: row for row in answer.payload["providers"]}
        assert {name for name, row in rows.items() if row["ready"]} == {
            *("mock", "anthropic", "ollama", "vllm", "llamacpp", "lmstudio")
        }
        assert [model["id"] for model in rows["mock"]["models"]] == ["tiny"]
        [fable] = [model for model in rows["anthropic"]["models"] if model["id"] == "claude-fable-5"]
        assert (fable["input_usd_per_mtok"], fable["images"]) == (7.5, True)
        assert fable["context_tokens"] > 100_000
        [only] = (await peer.ok("list_models", {"provider": "anthropic"}))["providers"]
        assert only == rows["anthropic"]
        assert (
            await peer.refused("list_models", {"provider": "nobody"})
            == "invalid_payload: provider: no provider of that name"
        )


def priced_chat(text: str, input_tokens: int, output_tokens: int) -> list[bytes]:
    usage = {"prompt_tokens": input_tokens, "completion_tokens": output_tokens}
    stop = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    return [chat_delta(text), data_lines(json.dumps(stop), "[DONE]")]


@pytest.mark.behaviour("P5.19")
async def test_what_a_run_cost(nous: OpenPeer) -> None:
    replies = [
        streams(*priced_chat("a", 1000, 100)),
        streams(*priced_chat("b", 2000, 0)),
        streams(*priced_chat("c", 1, 1)),
    ]
    async with serve(*replies) as server, nous(priced_setup(server)) as peer:
        ends: list[dict[str, Any]] = []
        for _ in range(2):
            events = await peer.run("hi", model="gpt-5.4")
            ends += [line.payload for line in events if line.type in ("message_end", "agent_end")]
        # Two dollars and a half for a million tokens read, fifteen for a million written.
        assert [end.get("cost_usd") for end in ends] == [None, 0.004, 0.004, None, 0.005, 0.005]
        state = await peer.ok("get_state")
        assert (state["usage"]["input_tokens"], state["usage"]["output_tokens"]) == (3000, 100)
        assert state["cost_usd"] == 0.009
        # Of a model nobody knows the price of, nothing is guessed, and the sum is not known any more.
        assert all("cost_usd" not in line.payload for line in await peer.run("hi", model="unheard-of"))
        state = await peer.ok("get_state")
        assert (state["usage"]["input_tokens"], "cost_usd" in state) == (3001, False)


@pytest.mark.behaviour("P5.19")
async def test_the_users_own_prices_count(nous: OpenPeer, home: Home) -> None:
    known = home.root / "models.yaml"
    known.write_text("openai: {m: {input_usd_per_mtok: 1000, output_usd_per_mtok: 0}}\n", encoding="utf-8")
    async with serve(streams(*priced_chat("a", 3, 100))) as server:
        setup = priced_setup(server)
        async with nous(
            Setup(setup.script, {"provider": {"models_file": str(known)}}, setup.flags, {}, "openai")
        ) as peer:
            assert (await peer.run("hi"))[-1].payload["cost_usd"] == 0.003


def priced_setup(server: Server) -> Setup:
    return chat_setup(server.url)


@pytest.mark.behaviour("P6.19")
async def test_several_providers_in_one_session(nous: OpenPeer, home: Home) -> None:
    """Each is built when it is first asked for, once; thinking is seen by nobody but who thought it."""
    think = {"choices": [{"index": 0, "delta": {"reasoning_content": "a secret thought"}}]}
    thinking = [data_lines(json.dumps(think)), *priced_chat("four", 1, 1)]
    replies = [streams(*thinking), streams(*priced_chat("five", 1, 1)), streams(*priced_chat("six", 1, 1))]
    async with serve(*replies) as server:
        config = {"providers": {"llamacpp": {"api_base": server.url}, "vllm": {"api_base": server.url}}}
        async with nous(Setup(config=config)) as peer:
            assert (await peer.ok("get_state"))["provider_builds"] == 0
            assert agent(await peer.run("2 + 2?", provider="llamacpp", model="q")) == ("llamacpp", "q")
            assert (await peer.ok("get_state"))["provider_builds"] == 1
            await peer.run("and 1?", provider="vllm", model="q")
            await peer.run("and 1?", provider="llamacpp", model="q")
            await peer.run("thank you")
            assert (await peer.ok("get_state"))["provider_builds"] == 2
        bodies = [json.loads(exchange.body) for exchange in server.exchanges]
        assert [[m["role"] for m in body["messages"]] for body in bodies] == [
            ["system", *["user", "assistant"] * n, "user"] for n in range(3)
        ]
        assert ["a secret thought" in json.dumps(body) for body in bodies] == [False, False, True]
        written = [json.loads(line) for line in home.session_lines()]
        assert [(m["provider"], m["model"]) for m in written if m.get("role") == "assistant"] == [
            ("llamacpp", "q"),
            ("vllm", "q"),
            ("llamacpp", "q"),
            ("mock", "mock"),
        ]
