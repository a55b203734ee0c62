"""What a run cost: said where it is known for certain, and not at all where any part of it is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nous.ports.model import Finish, Prices, TextDelta, UsageReport
from nous.protocol.messages import Usage
from tests.support.engine import Bench, make_spec, tool_call

PRICES = Prices(input_usd_per_mtok=2.0, cached_usd_per_mtok=0.2, output_usd_per_mtok=10.0)


def used(input_tokens: int = 1000, output_tokens: int = 100, cached_tokens: int = 0) -> UsageReport:
    return UsageReport(Usage(input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached_tokens))


def priced(prices: Prices | None = PRICES) -> Bench:
    return Bench(make_spec(prices=prices)).start()


def test_a_call_and_its_run() -> None:
    bench = priced().produce(TextDelta("a"), used(cached_tokens=500)).answer().store()
    assert bench.payloads("message_end")[-1]["cost_usd"] == 0.0021
    assert bench.payload("agent_end")["cost_usd"] == 0.0021


def test_a_users_message_costs_nothing_by_itself() -> None:
    assert "cost_usd" not in priced().say().payloads("message_end")[0]


def test_calls_add_up_each_at_its_own_price() -> None:
    long = Prices(
        input_usd_per_mtok=1,
        output_usd_per_mtok=1,
        long_prompt_tokens=1500,
        long_input_usd_per_mtok=2,
        long_output_usd_per_mtok=2,
    )
    bench = priced(long).produce(used(1500, 0)).call_tools(tool_call("read")).run_tool()
    bench.produce(used(1501, 0)).say()
    assert [end.get("cost_usd") for end in bench.payloads("message_end")] == [None, 0.0015, 0.003002]
    assert bench.payload("agent_end")["cost_usd"] == 0.004502


def test_without_prices_or_without_a_report_there_is_no_cost() -> None:
    for bench in (priced(None).produce(used()).say(), priced().say()):
        assert all("cost_usd" not in end for end in bench.payloads("message_end", "agent_end"))


def test_a_call_that_was_cut_has_no_known_cost_and_neither_has_its_run() -> None:
    cut = priced().produce(used()).call_tools(tool_call("read")).run_tool()
    cut.produce(TextDelta("half"), used()).fail_model("provider_unavailable", "cut")
    aborted = priced().produce(TextDelta("half"), used()).abort()
    assert cut.payloads("message_end")[1]["cost_usd"] == 0.003
    for bench in (cut, aborted):
        assert "cost_usd" not in bench.payloads("message_end")[-1]
        assert "cost_usd" not in bench.payload("agent_end")


def test_a_call_that_was_refused_costs_nothing() -> None:
    refused = priced().produce(used()).call_tools(tool_call("read")).run_tool().fail_model("provider_auth")
    assert refused.payload("agent_end")["cost_usd"] == 0.003


def test_a_summary_is_paid_for_too() -> None:
    bench = Bench(make_spec(prices=PRICES)).compact().plan()
    bench.produce(TextDelta("short"), used(), Finish("stop")).done().store_compaction(10)
    assert bench.payload("agent_end")["cost_usd"] == 0.003
    unknown = Bench(make_spec(prices=PRICES)).compact().plan().produce(TextDelta("sh")).fail_model("provider_error")
    assert "cost_usd" not in unknown.store_compaction(10).payload("agent_end")


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 10**7)), min_size=1, max_size=5))
def test_the_run_is_the_sum_of_its_messages(calls: list[tuple[int, int, int]]) -> None:
    bench = priced()
    for position, usage in enumerate(calls):
        bench.produce(used(*usage))
        if position + 1 < len(calls):
            bench.call_tools(tool_call("read", call_id=f"t{position}")).run_tool()
    bench.say()
    ends = [end["cost_usd"] for end in bench.payloads("message_end") if end["role"] == "assistant"]
    assert abs(sum(ends) - bench.payload("agent_end")["cost_usd"]) < 1e-8
