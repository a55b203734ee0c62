"""Event streams written by hand, as a daemon would write them: for tests of who reads events."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


class Script:
    """Writes events as a daemon would, one after the other."""

    def __init__(self) -> None:
        self.events: list[Json] = []
        self._seq = 0
        self._k = 0

    def say(self, kind: str, **payload: Any) -> Script:
        self._seq += 1
        self._k = 0
        return self._add({"id": f"r1.{self._seq}", "type": kind, "seq": self._seq}, payload)

    def feature(self, kind: str, **payload: Any) -> Script:
        self._k += 1
        return self._add({"id": f"r1.{self._seq}.{self._k}", "type": kind, "after_seq": self._seq}, payload)

    def _add(self, envelope: Json, payload: Json) -> Script:
        ts = "2026-01-02T03:04:05.678Z"
        self.events.append({"v": "1", **envelope, "ts": ts, "payload": {"run_id": "r1", **payload}})
        return self

    def user(self, turn_id: str, message_id: str, text: str) -> Script:
        self.say("turn_start", turn_id=turn_id, turn_kind="prompt", command_id="c1")
        self.say("message_start", turn_id=turn_id, message_id=message_id, role="user")
        return self.say("message_end", turn_id=turn_id, message_id=message_id, role="user", text=text)

    def deltas(self, turn_id: str, message_id: str, *deltas: str) -> Script:
        self.say("message_start", turn_id=turn_id, message_id=message_id, role="assistant")
        for delta in deltas:
            self.say("message_update", turn_id=turn_id, message_id=message_id, delta=delta)
        return self


def good_run() -> list[Json]:
    """A run with all that there is: two turns, text, thinking, two tools, a warning, a status."""
    s = Script().say("agent_start", session_id="s1").user("1", "m1", "hello")
    s.deltas("1", "m2", "one ")
    for piece in ("h", "m"):
        s.feature("thinking_update", turn_id="1", message_id="m2", delta=piece)
    s.feature("tool_arguments_update", turn_id="1", message_id="m2", tool_call_id="t1", delta="{}")
    s.say("message_update", turn_id="1", message_id="m2", delta="\u2028two\U0001f600")
    s.say("message_end", turn_id="1", message_id="m2", role="assistant", text="one \u2028two\U0001f600")
    for tool in ({"tool_call_id": "t1", "tool_name": "read"}, {"tool_call_id": "t2", "tool_name": "bash"}):
        s.say("tool_execution_start", turn_id="1", **tool, arguments={})
        s.say("warning", turn_id="1", code="tool_execution_error", message="The tool failed.")
        s.say("tool_execution_update", turn_id="1", **tool, delta="x")
        s.say("tool_execution_end", turn_id="1", **tool, result="x")
    s.say("turn_end", turn_id="1").say("status", message="between").user("2", "m5", "more").deltas("2", "m6")
    s.feature("thinking_update", turn_id="2", message_id="m6", delta="nothing to say")
    s.say("message_end", turn_id="2", message_id="m6", role="assistant", text="", stop_reason="stop")
    return s.say("turn_end", turn_id="2").say("agent_end", status="completed").events
