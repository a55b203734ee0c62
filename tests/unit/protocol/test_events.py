"""Event lines: their envelope, their order, and the template that writes deltas."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.protocol.events import (
    CONNECTION_FEATURES,
    EVENTS,
    FEATURE_EVENTS,
    FEATURES,
    DeltaTemplate,
    MessageEnd,
    MessageUpdate,
    StatusEvent,
    ThinkingUpdate,
    TurnStart,
    WarningEvent,
    daemon_line,
    event_line,
    feature_line,
    untraced_line,
)
from tests.unit.protocol.samples import as_json, sample

TS = "2026-01-02T03:04:05.678Z"

# What JSON must escape, what it may leave, and what line readers of other languages break on.
AWKWARD = (
    'quote " backslash \\ slash / nul \x00 lf \n cr \r tab \t del \x7f nel \x85 ls \u2028 ps \u2029 \U0001f600 %d %%'
)


def read(line: bytes) -> dict[str, Any]:
    """Decode one line, as strictly as JSON is meant."""
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert not [byte for byte in line[:-1] if byte < 0x20]

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    decoded = json.loads(line.decode("utf-8"), parse_constant=refuse)
    assert isinstance(decoded, dict)
    return decoded


@pytest.mark.parametrize("kind", EVENTS)
@pytest.mark.parametrize("full", [False, True])
def test_a_line_of_every_frozen_type(kind: str, full: bool) -> None:
    payload = sample(EVENTS[kind], full=full)
    line = read(event_line(b"r1", 17, TS.encode(), payload))
    assert list(line) == ["v", "id", "type", "seq", "ts", "payload"]
    assert line == {"v": "1", "id": "r1.17", "type": kind, "seq": 17, "ts": TS, "payload": as_json(payload)}


@pytest.mark.parametrize("kind", FEATURE_EVENTS)
def test_a_line_of_every_feature_type(kind: str) -> None:
    payload = sample(FEATURE_EVENTS[kind][1], full=True)
    line = read(feature_line(b"r1", 17, 2, TS.encode(), payload))
    assert list(line) == ["v", "id", "type", "after_seq", "ts", "payload"]
    assert line == {"v": "1", "id": "r1.17.2", "type": kind, "after_seq": 17, "ts": TS, "payload": as_json(payload)}


@pytest.mark.parametrize(
    "payload", [StatusEvent(message="ready", pid=1), WarningEvent(code="tool_blocked", message="m")]
)
def test_a_line_outside_any_run(payload: StatusEvent | WarningEvent) -> None:
    line = read(daemon_line(3, TS, payload, 1 << 20))
    assert list(line) == ["v", "id", "type", "ts", "payload"]
    assert (line["id"], line["ts"], line["payload"]) == ("evt-3", TS, as_json(payload))
    assert line["type"] == ("status" if isinstance(payload, StatusEvent) else "warning")


def test_a_line_outside_any_trace() -> None:
    payload = sample(EVENTS["agent_end"], full=True)
    line = read(untraced_line("r1", 2, TS, payload))
    assert list(line) == ["v", "id", "type", "ts", "payload"]
    assert (line["type"], line["payload"]) == ("agent_end", as_json(payload))


def test_any_text_stays_on_its_line() -> None:
    lines = (
        event_line(b"r", 1, TS.encode(), MessageEnd(run_id="r", turn_id="1", message_id="m", text=AWKWARD)),
        feature_line(b"r", 1, 1, TS.encode(), ThinkingUpdate(run_id="r", turn_id="1", message_id="m", delta=AWKWARD)),
        daemon_line(1, TS, WarningEvent(code="tool_blocked", message=AWKWARD), 1 << 20),
    )
    for line, key in zip(lines, ("text", "delta", "message"), strict=True):
        assert read(line)["payload"][key] == AWKWARD


def test_no_number_is_written_that_json_does_not_have() -> None:
    payload = EVENTS["agent_end"](run_id="r", output=[float("nan"), float("inf"), -float("inf")])
    assert read(event_line(b"r", 1, TS.encode(), payload))["payload"]["output"] == [None, None, None]


def test_what_is_unset_is_not_written() -> None:
    payload = TurnStart(run_id="r", turn_id="1")
    assert read(event_line(b"r", 1, TS.encode(), payload))["payload"] == {"run_id": "r", "turn_id": "1"}


def test_a_run_is_named_first_in_a_payload() -> None:
    for kind, cls in {**EVENTS, **{k: c for k, (_, c) in FEATURE_EVENTS.items()}}.items():
        names = list(as_json(sample(cls, full=True)))
        if kind not in ("status", "warning"):
            assert names[0] == "run_id"


@given(
    st.integers(1, 2**53),
    st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    st.from_regex(r"\A[A-Za-z0-9_-]{1,128}\Z"),
)
def test_the_template_writes_what_the_struct_would(seq: int, delta: str, name: str) -> None:
    payload = MessageUpdate(run_id=name, turn_id="12", message_id=f"m-{name}", delta=delta)
    template = DeltaTemplate(name, "12", f"m-{name}")
    line = template.line(seq, TS.encode(), msgspec.json.encode(delta))
    assert line == event_line(name.encode(), seq, TS.encode(), payload)
    assert read(line)["payload"]["delta"] == delta


def test_the_template_takes_a_delta_of_awkward_text() -> None:
    line = DeltaTemplate("r", "1", "m").line(1, TS.encode(), msgspec.json.encode(AWKWARD))
    assert read(line)["payload"] == {"run_id": "r", "turn_id": "1", "message_id": "m", "delta": AWKWARD}


def test_features_are_those_of_the_feature_events() -> None:
    assert {feature for feature, _ in FEATURE_EVENTS.values()} == set(FEATURES)
    assert CONNECTION_FEATURES == ("events", "thinking", "tool_arguments")


def test_the_frozen_types_are_those_of_the_protocol() -> None:
    assert tuple(EVENTS) == (
        "agent_start",
        "agent_end",
        "turn_start",
        "turn_end",
        "message_start",
        "message_update",
        "message_end",
        "tool_execution_start",
        "tool_execution_update",
        "tool_execution_end",
        "status",
        "warning",
        "error",
    )
